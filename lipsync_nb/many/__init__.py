"""Many clips: tables of jobs, what is done already, and workers that do the rest."""
