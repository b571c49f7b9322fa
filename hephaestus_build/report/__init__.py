"""What people see: quicklooks and reports."""
