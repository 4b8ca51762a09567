"""The verbs `up` and `serve`: what is missing is done, then a service runs until Ctrl-C."""
