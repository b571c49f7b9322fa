"""The experts' annotations: archives of JSON files, loaded, checked and cached."""
