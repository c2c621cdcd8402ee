"""A name, folder or .gguf file <-> (module, tokenizer). The only room that knows Transformers' loading."""
