"""Raw documents in, documents worth learning from out; `pipeline.clean` is the entry.

    text.normalised ── text.without_unknown ── personal.redactor      change a document
    language, quality, unwanted (rules.yaml), duplicates              drop a document

Every rule has a name, and what it dropped is counted under it and shown by samples.
"""
