"""The Hephaestus annotations: archives of JSON files, downloaded, parsed and cached."""
