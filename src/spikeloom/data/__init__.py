"""From a source of text to rows of tokens.

    sources.documents ── readers (txt, jsonl, parquet, gz/bz2/xz/zst), python_docs, the hub
      -> split.split_documents   which side a document is on: training or evaluation
      -> packing.pack            tokenised once, kept as a memory-mapped stream
      -> packing.TokenRows       rows of `context` tokens for a DataLoader

    web         Wikipedia, dumps, books, papers      questions   questions on articles
    records     one form for each kind of record     push        to the hub, with a data card
    manifest    the note beside every output         resume      outputs that grow

Import from the modules: `sources`, `readers` and `split` stay free of torch.
"""
