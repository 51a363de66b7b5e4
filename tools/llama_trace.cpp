// Runs a GGUF in llama.cpp and writes every f32 and i32 tensor that its evaluation callback hands out, in the order of
// evaluation, for tools/llama_trace.py to name:
//
//     g++ -O1 -std=c++17 -I$LLAMA/include -I$LLAMA/ggml/include tools/llama_trace.cpp -o llama_trace
//         -L$BUILD/bin -lllama -lggml -lggml-base -Wl,-rpath,$BUILD/bin
//     ./llama_trace model.gguf 1,2,3 out.raw
//
// One thread, KV cache in f32, no flash attention, no repacked weights: what is left of llama.cpp's own is its graph and its
// kernels. A record is a line `NAME TYPE NE0 NE1 NE2 NE3`, then the elements, innermost axis first, then a newline. A name
// that comes again gets `#1`, `#2`, …

#include <cstdio>
#include <cstdlib>
#include <map>
#include <string>
#include <vector>

#include "ggml-backend.h"
#include "ggml.h"
#include "llama.h"

struct Trace {
    FILE *out = nullptr; // nothing is kept while llama.cpp warms up
    std::map<std::string, int> seen;
};

static bool record(ggml_tensor *t, bool ask, void *data) {
    Trace &trace = *static_cast<Trace *>(data);
    if (ask || !trace.out || (t->type != GGML_TYPE_F32 && t->type != GGML_TYPE_I32)) return true;
    std::string name = t->name;
    const int again = trace.seen[name]++;
    if (again > 0) name += "#" + std::to_string(again);
    std::vector<char> bytes(ggml_nbytes(t));
    ggml_backend_tensor_get(t, bytes.data(), 0, bytes.size());
    const int64_t *ne = t->ne;
    fprintf(trace.out, "%s %s %lld %lld %lld %lld\n", name.c_str(), t->type == GGML_TYPE_F32 ? "f32" : "i32",
            (long long) ne[0], (long long) ne[1], (long long) ne[2], (long long) ne[3]);
    for (int64_t i3 = 0; i3 < ne[3]; i3++)
        for (int64_t i2 = 0; i2 < ne[2]; i2++)
            for (int64_t i1 = 0; i1 < ne[1]; i1++)
                for (int64_t i0 = 0; i0 < ne[0]; i0++) {
                    const size_t at = i0 * t->nb[0] + i1 * t->nb[1] + i2 * t->nb[2] + i3 * t->nb[3];
                    fwrite(bytes.data() + at, 4, 1, trace.out);
                }
    fputc('\n', trace.out);
    return true;
}

int main(int argc, char **argv) {
    if (argc != 4) {
        fprintf(stderr, "usage: llama_trace MODEL.gguf 1,2,3 OUT.raw\n");
        return 2;
    }
    std::vector<llama_token> tokens;
    for (char *at = argv[2]; *at != 0; at += *at == ',') tokens.push_back(strtol(at, &at, 10));
    llama_backend_init();
    llama_model_params how = llama_model_default_params();
    how.use_extra_bufts = false;
    llama_model *model = llama_model_load_from_file(argv[1], how);
    if (!model) return 1;
    Trace trace;
    llama_context_params context = llama_context_default_params();
    context.n_ctx = context.n_batch = context.n_ubatch = tokens.size() > 512 ? tokens.size() : 512;
    context.n_threads = context.n_threads_batch = 1;
    context.type_k = context.type_v = GGML_TYPE_F32;
    context.flash_attn_type = LLAMA_FLASH_ATTN_TYPE_DISABLED;
    context.cb_eval = record;
    context.cb_eval_user_data = &trace;
    llama_context *run = llama_init_from_model(model, context);
    if (!run) return 1;
    llama_batch batch = llama_batch_init(tokens.size(), 0, 1);
    batch.n_tokens = tokens.size();
    for (size_t i = 0; i < tokens.size(); i++) {
        batch.token[i] = tokens[i];
        batch.pos[i] = i;
        batch.n_seq_id[i] = 1;
        batch.seq_id[i][0] = 0;
        batch.logits[i] = 1;
    }
    trace.out = fopen(argv[3], "wb");
    if (!trace.out) return 1;
    const int failed = llama_decode(run, batch);
    return fclose(trace.out) != 0 || failed != 0;
}
