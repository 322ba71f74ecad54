"""From a source of text to rows of tokens.

    sources.records ── readers (txt, jsonl, parquet, gz/bz2/xz/zst), python_docs, the hub
      -> cleaning.pipeline.clean   put in order, sifted, freed of duplicates: one .jsonl
      -> split.sides               which side a document is on: training or evaluation
      -> packing.pack              tokenised once, in the cache   ┐ shards.py: streams on disk,
         prepare.prepare           or in a directory of yours     ┘ read through memory maps
      -> packing.TokenRows         rows of `context` tokens for a DataLoader
         conditioning.ConditionedRows   … with category, source and id before the text

    web          Wikipedia, dumps, books, papers
    records      one form for each kind of record
    questions    questions on articles
    push         to the hub, with a data card
    build        a recipe: clean, train a tokenizer, prepare
    curriculum   words, phrases, sentences, stories, conversations
    trace        which training chunks a text is nearest to
    manifest     the note beside every output
    resume       outputs that grow

Import from the modules: `sources`, `readers`, `split` and `cleaning` stay free of torch.
"""
