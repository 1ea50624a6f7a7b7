"""What is wrong with material, networks, a speech or this machine, and what to do."""
