"""What a checkpoint is worth: quality, sparsity, speed, and whether its forms agree.

checkpoint   load      a directory to (model, tokenizer), or one clear line
perplexity   evaluate  loss, bits per byte, firing, operations, energy
verify       verify    graded = unrolled = recurrent
speed        decode_speed, interleaved
compare      compare, to_markdown, to_png
profile      profile   raster, rates, dead channels, where the operations are

Import from the modules; each loads only what it needs.
"""
