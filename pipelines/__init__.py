"""What flows: receivers, the decoder, the dataflow and its commits."""
