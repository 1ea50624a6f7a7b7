"""Networks: their files, sessions, and what makes them ready to run fast."""
