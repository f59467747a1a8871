"""What ties the library to Snakemake: code digests, rule parameters and the life of a job."""
