"""Run-kits on this machine: recipes, locks of wheels, building, checking and running."""
