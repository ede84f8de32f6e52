"""A randomised campaign of jobs on the pocket host: after each one everything is as it was. `make soak`."""
