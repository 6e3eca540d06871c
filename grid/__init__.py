"""Many runs from one TOML file: what it asks for (read), its processes here (workers) or on a cluster
(slurm)."""
