"""What other tools do in place of ours, run by the bench in the same minutes."""
