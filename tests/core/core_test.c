/* core: random numbers, hashes, text, threads, files, memory, dtypes, regular expressions. */
#include "core/file.h"
#include "core/json.h"
#include "core/mem.h"
#include "core/regex.h"
#include "core/rng.h"
#include "core/sha256.h"
#include "core/tensor.h"
#include "core/text.h"
#include "core/threads.h"
#include "tests/check.h"

#include <math.h>
#include <stdlib.h>
#include <unistd.h>

CASE(philox_matches_its_published_vectors)
{
    uint32_t out[4];
    ft_philox((uint32_t[4]){0, 0, 0, 0}, 0, out);
    CHECK(out[0] == 0x6627e8d5 && out[1] == 0xe169c58d && out[2] == 0xbc57ac4c &&
          out[3] == 0x9b00dbd8);
    ft_philox((uint32_t[4]){~0u, ~0u, ~0u, ~0u}, ~0ull, out);
    CHECK(out[0] == 0x408f276d && out[1] == 0x41c83b0e && out[2] == 0xa20bc7c6 &&
          out[3] == 0x6d5451fd);
}

CASE(uniform_numbers_are_uniform)
{
    struct ft_rng r = ft_rng_init(1, FT_RNG_TEST, 2, 3);
    int counts[10] = {0};
    double sum = 0;
    for (int i = 0; i < 100000; i++) {
        counts[ft_rng_below(&r, 10)]++;
        float f = ft_rng_f32(&r);
        CHECK(f >= 0 && f < 1);
        sum += (double)f;
    }
    for (int i = 0; i < 10; i++)
        CHECK_NEAR(counts[i], 10000, 500);
    CHECK_NEAR(sum / 100000, 0.5, 0.01);
}

CASE(sha256_matches_its_published_vectors)
{
    struct ft_sha256 s;
    char hex[65];
    ft_sha256_init(&s);
    ft_sha256_hex(&s, hex);
    CHECK_TEXT(hex, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    ft_sha256_init(&s);
    ft_sha256_add(&s, "abc", 3);
    ft_sha256_hex(&s, hex);
    CHECK_TEXT(hex, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    ft_sha256_init(&s);
    for (int i = 0; i < 1000; i++) /* a million times "a", in uneven parts */
        for (int k = 0; k < 10; k++)
            ft_sha256_add(
                &s,
                "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
                "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
                k % 2 ? 93 : 107);
    ft_sha256_hex(&s, hex);
    CHECK_TEXT(hex, "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
}

CASE(the_nearest_word_is_suggested)
{
    static const char *const words[] = {"lora_r", "learning_rate", "seed"};
    CHECK_INT(ft_edit_distance("kitten", "sitting"), 3);
    CHECK_INT(ft_edit_distance("abcd", "acbd"), 1);
    CHECK_INT(ft_edit_distance("", "abc"), 3);
    CHECK_TEXT(ft_nearest("learnign_rate", words, 3), "learning_rate");
    CHECK(ft_nearest("zzzzzz", words, 3) == NULL);
}

struct sum {
    _Atomic long total;
};

static void add_piece(void *arg, int64_t piece, void *scratch)
{
    *(volatile char *)scratch = 1;
    ((struct sum *)arg)->total += piece;
}

CASE(every_piece_runs_once_on_any_pool)
{
    for (int threads = 1; threads <= 5; threads++) {
        struct ft_pool *p;
        FT_ASSERT(ft_pool_new(&p, threads) == FT_OK);
        for (int round = 0; round < 300; round++) {
            struct sum s = {0};
            int n = round % 40;
            if (round % 100 == 99)
                usleep(3000); /* let the workers fall asleep */
            ft_pool_run(p, n, add_piece, &s);
            CHECK_INT(s.total, n * (n - 1) / 2);
        }
        ft_pool_free(p);
    }
    setenv("SLURM_CPUS_PER_TASK", "1", 1);
    CHECK_INT(ft_cpu_allowance(1), 1);
    unsetenv("SLURM_CPUS_PER_TASK");
    CHECK(ft_cpu_allowance(1) >= 1);
}

CASE(memory_nodes_are_those_with_processors_of_ours)
{
    char root[] = "/tmp/ft-nodes-XXXXXX", command[512];
    CHECK(mkdtemp(root) != NULL);
    CHECK_INT(ft_numa_nodes(root), 1);
    snprintf(command, sizeof command,
             "cd %s && mkdir node0 node1 node2 node7 && echo 0-1023 > node0/cpulist && "
             "echo 2000 > node1/cpulist && echo > node2/cpulist && "
             "echo 1500,1,0-3,9 > node7/cpulist",
             root);
    CHECK_INT(system(command), 0);
    CHECK_INT(ft_numa_nodes(root), 2);
    snprintf(command, sizeof command, "rm -r %s", root);
    CHECK_INT(system(command), 0);
}

CASE(dtypes_widen_exactly)
{
    CHECK_NEAR((double)ft_bf16_to_f32(0x3f80), 1, 0);
    CHECK_NEAR((double)ft_f16_to_f32(0x3c00), 1, 0);
    CHECK_NEAR((double)ft_f16_to_f32(0x0001), 0x1p-24, 0);
    CHECK_NEAR((double)ft_f16_to_f32(0xfbff), -65504, 0);
    CHECK(isinf(ft_f16_to_f32(0x7c00)) && isnan(ft_f16_to_f32(0x7e00)));
    CHECK_INT(ft_f32_to_bf16(1.00390625f), 0x3f80); /* half way: to even */
    CHECK_INT(ft_f32_to_bf16(1.01171875f), 0x3f82);
    CHECK(isnan(ft_bf16_to_f32(ft_f32_to_bf16(NAN))));
    for (uint32_t h = 0; h < 0x7f80; h++)
        CHECK(ft_f32_to_bf16(ft_bf16_to_f32((uint16_t)h)) == h);
}

static bool matches(const struct ft_regex *r, const char *text)
{
    bool is = false;
    CHECK_INT(ft_regex_matches_all(r, text, &is), FT_OK);
    return is;
}

CASE(regular_expressions_match_as_a_whole)
{
    struct ft_regex *r;
    CHECK_INT(ft_regex_new(&r, FT_ECONFIG, "", "a|ab", ""), FT_OK);
    CHECK(matches(r, "ab") && matches(r, "a"));
    CHECK(!matches(r, "abc") && !matches(r, "xa"));
    ft_regex_free(r);
    CHECK_INT(ft_regex_new(&r, FT_ECONFIG, "", "model\\.\\d+\\.(?!k_)[qkv]_proj", ""), FT_OK);
    CHECK(matches(r, "model.12.q_proj") && !matches(r, "model.12.k_proj"));
    ft_regex_free(r);
    ft_status_clear();
    CHECK_INT(ft_regex_new(&r, FT_ECONFIG, "", "(", ""), FT_ECONFIG);
    CHECK_HAS(ft_status_report(), "'('");
}

CASE(files_are_replaced_whole)
{
    char folder[] = "/tmp/ft-file-XXXXXX", path[64], *data;
    size_t n;
    FT_ASSERT(mkdtemp(folder));
    snprintf(path, sizeof path, "%s/a/b/c", folder);
    CHECK_INT(ft_make_folders(path), FT_OK);
    CHECK(ft_is_folder(path));
    snprintf(path, sizeof path, "%s/f", folder);
    CHECK_INT(ft_file_write(path, "one", 3), FT_OK);
    CHECK_INT(ft_file_write(path, "three", 5), FT_OK);
    CHECK_INT(ft_file_read(path, 100, FT_EDATA, &data, &n), FT_OK);
    CHECK_TEXT(data, "three");
    ft_free(data);
    ft_status_clear();
    CHECK_INT(ft_file_read(path, 3, FT_EDATA, &data, &n), FT_EDATA);
    CHECK_INT(ft_file_read(folder, 100, FT_ECONFIG, &data, &n), FT_ECONFIG);
    char command[96];
    snprintf(command, sizeof command, "ls -A %s | tr '\\n' ' ' | grep -qx 'a f ' && rm -r %s",
             folder, folder);
    CHECK_INT(system(command), 0); /* no temporary was left */
}

CASE(an_interrupted_writer_leaves_nothing)
{
    char folder[] = "/tmp/ft-heed-XXXXXX", path[256];
    volatile sig_atomic_t stop = 0;
    struct ft_writer w;
    CHECK(mkdtemp(folder) != NULL);
    snprintf(path, sizeof path, "%s/a", folder);
    ft_writer_heed(&stop);
    CHECK_INT(ft_writer_open(&w, path), FT_OK);
    CHECK_INT(ft_writer_put(&w, "x", 1), FT_OK);
    stop = 1;
    CHECK_INT(ft_writer_put(&w, "x", 1), FT_EREQUEUE);
    CHECK_HAS(ft_status_report(), "interrupted");
    ft_status_clear_errors();
    ft_writer_abort(&w);
    ft_writer_heed(NULL);
    CHECK_INT(rmdir(folder), 0);
}

CASE(what_killed_processes_left_is_removed)
{
    char folder[] = "/tmp/ft-sweep-XXXXXX", path[256];
    static const char *const names[] = {"a",          "a.tmp.12", "a.tmp.x",
                                        "a.tmp.12.b", "aa.tmp.1", "a.tmp."};
    CHECK(mkdtemp(folder) != NULL);
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        snprintf(path, sizeof path, "%s/%s", folder, names[i]);
        CHECK_INT(ft_file_write(path, "x", 1), FT_OK);
    }
    snprintf(path, sizeof path, "%s/a", folder);
    ft_writer_sweep(path);
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        snprintf(path, sizeof path, "%s/%s", folder, names[i]);
        CHECK_INT(ft_file_exists(path), i != 1 && i != 5);
        unlink(path);
    }
    CHECK_INT(rmdir(folder), 0);
}

/* Identifiers of other programs may have more than 64 bits: their records can be read. */
CASE(numbers_beyond_64_bits_are_reals)
{
    static const char text[] =
        "{\"a\": 12345678901234567890, \"b\": [-99999999999999999999, 1234567890123456789], \"c\": "
        "\"12345678901234567890 \\\" 12345678901234567890\", \"d\": 0.12345678901234567890123, "
        "\"e\": 12345678901234567890e1}";
    json_t *o;
    CHECK_INT(ft_json_record(text, sizeof text - 1, (struct ft_where){0}, FT_EDATA, &o), FT_OK);
    CHECK(json_real_value(json_object_get(o, "a")) == 12345678901234567890.0);
    const json_t *b = json_object_get(o, "b");
    CHECK(json_real_value(json_array_get(b, 0)) == -99999999999999999999.0);
    CHECK_INT(json_integer_value(json_array_get(b, 1)), 1234567890123456789);
    CHECK_TEXT(json_string_value(json_object_get(o, "c")),
               "12345678901234567890 \" 12345678901234567890");
    CHECK(json_real_value(json_object_get(o, "e")) == 12345678901234567890e1);
    json_decref(o);
    CHECK_INT(ft_json_record("1e999", 5, (struct ft_where){0}, FT_EDATA, &o), FT_EDATA);
    ft_status_clear();
}
