"""What the command line does, one module a command: functions on values; torch only when called for."""
