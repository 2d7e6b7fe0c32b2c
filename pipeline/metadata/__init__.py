"""Write and read the metadata of pictures: A1111's parameters text and this project's receipt."""
