# All that a change must pass.
ci:
    .ci/run

test:
    cargo test --workspace

# Judge the bundled Transformers trace.
verify model="dense-text-f32":
    cargo run --release -- verify fixtures/models/{{model}} --against fixtures/traces/{{model}}.hf_f32.npz

# Write docs/layout.md and docs/points.md anew from the code's tables.
pages:
    UPDATE=1 cargo test --test tests pages

fmt:
    cargo fmt --all
