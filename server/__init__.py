"""The only place that knows everyone: settings, processes and the command line."""
