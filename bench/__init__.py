"""What is measured, each figure against a real peer in the same run. ``python -m bench`` runs all."""
