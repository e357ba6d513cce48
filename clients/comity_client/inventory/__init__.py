"""What lies on the disks of a machine, in a file: taken again and again, and compared with the time before."""
