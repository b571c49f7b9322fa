"""What is out there: LiCSAR, ERA5 and the annotations, read over HTTP and told truthfully."""
