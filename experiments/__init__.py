"""What the commands do, for Python as well: settings, and the experiments that they describe."""
