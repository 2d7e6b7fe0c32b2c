"""The server's side of the page: the web API, the device's lock, and the state of each run."""
