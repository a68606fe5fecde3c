"""Pages in the browser: tagging photos (:mod:`tagseg.web.serve` starts them)."""
