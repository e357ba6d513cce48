// What `llama-server -hf NAMESPACE/NAME[:QUANTISATION]` does before it loads a model, by llama.cpp's own code.
#include "build-info.h"
#include "common.h"
#include "download.h"
#include "hf-cache.h"

#include <cstdio>
#include <cstdlib>

int llama_build_number(void) { return 0; }
const char * llama_commit(void) { return "unknown"; }
const char * llama_build_info(void) { return "b0-unknown"; }
void ggml_abort(const char * file, int line, const char *, ...) {
    std::fprintf(stderr, "%s:%d: aborted\n", file, line);
    std::abort();
}

int main(int, char ** arguments) {
    common_params_model model;
    model.hf_repo = arguments[1];
    common_download_opts options;
    if (const char * token = std::getenv("HF_TOKEN")) {
        options.bearer_token = token;
    }
    const auto plan = common_download_get_hf_plan(model, options);
    std::vector<common_download_task> tasks;
    for (const auto & file : plan.model_files) {
        tasks.emplace_back(file, options);
    }
    common_download_run_tasks(tasks);
    for (const auto & file : plan.model_files) {
        std::printf("\nfetched %s\n", hf_cache::finalize_file(file).c_str());
    }
    return tasks.empty();
}
