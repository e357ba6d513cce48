module comity.invalid/reader

go 1.22
