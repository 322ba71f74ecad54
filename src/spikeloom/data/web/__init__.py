"""Text from the web: Wikipedia, its dumps, Project Gutenberg and arXiv, politely.

    client      one way to ask a server: spaced, retried, never impatient
    mediawiki   the action API, the pageviews API       -> wikipedia   articles by shelf and views
    markup      wiki markup to plain text               -> dump        articles of an XML dump
    gutenberg   catalogue and texts                     -> books
    arxiv       Atom, OAI and HTML                      -> papers

Each of the four on the right yields records to a `resume.GrowingJsonl` and counts what it skipped.
"""
