"""What clients do while something is measured."""
