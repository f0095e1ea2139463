"""What operators see of a process: metrics, traces, log lines."""
