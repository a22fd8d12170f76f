"""What the command line does from a file to a report: each job leaves a folder."""
