"""Policy files for people: what one means in plain words, what under it could never pass, and one to start from."""
