"""When things happen in a Lightning run."""
