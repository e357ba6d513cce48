"""The command that writes a catalogue for data portals."""
