"""Stage 5: what was found, as Markdown, a page, pictures and a model card."""
