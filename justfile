# All that a change must pass.
ci:
    .ci/run

test:
    cargo test --workspace

# Judge the bundled Transformers trace.
verify model="dense-text-f32":
    cargo run --release -- verify fixtures/models/{{model}} --against fixtures/traces/{{model}}.hf_f32.npz

# Write docs/layout.md anew from the layout map.
layout:
    UPDATE=1 cargo test --test tests layout

fmt:
    cargo fmt --all
