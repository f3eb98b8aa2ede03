"""What people see: figures, tables and pages, made from a finished comparison."""
