"""Reports as self-contained pages of HTML: templates, and what they show."""
