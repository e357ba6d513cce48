"""Hand-off files for schedulers: Slurm, Kubernetes with Kueue, and SkyPilot. Those for SSH are the core's."""
