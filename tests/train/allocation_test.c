/* Every allocation of a whole run is made to fail in turn: each must end as a status, never in a
 * crash, a leak or a half-written folder. */
#include "tests/golden/golden.h"

#include "core/file.h"
#include "core/mem.h"

#include <stdlib.h>

CASE(every_allocation_may_fail)
{
    char folder[64] = "/tmp/ft-alloc-XXXXXX";
    struct setup s = {0};
    int failed = 0, rc = FT_ERESOURCE;
    FT_ASSERT(mkdtemp(folder));
    setup_golden(&s, "few-modules");
    setup_add(&s, "output_dir=%s/out", folder);
    setup_add(&s, "max_steps=1");
    setup_add(&s, "threads=1");
    setup_add(&s, "val_set_size=1");
    for (uint64_t n = 1; rc != FT_OK && n < 20000; n++) {
        struct opened o = {0};
        struct ft_train_result r;
        ft_status_clear();
        ft_alloc_fail_at(n);
        rc = ft_config_read(&o.config, NULL, s.list, s.n);
        if (!rc)
            rc = ft_job_open(&o.job, &o.config, NULL);
        if (!rc)
            rc = ft_train(&o.job, &(struct ft_train_options){0}, &r);
        ft_alloc_fail_at(0);
        close_setup(&o);
        if (rc) {
            failed++;
            if (rc != FT_ERESOURCE)
                check_fail("allocation", (int)n, "ends with %d: %s", rc, ft_status_report());
        }
        char pattern[160];
        snprintf(pattern, sizeof pattern, "ls %s/out 2>/dev/null | grep -q tmp", folder);
        CHECK(system(pattern) != 0);
        if (rc) {
            snprintf(pattern, sizeof pattern, "%s/out", folder);
            remove_folder(pattern);
        }
    }
    CHECK_INT(rc, FT_OK);
    CHECK(failed > 50);
    printf("  %d allocations failed in turn\n", failed);
    remove_folder(folder);
}
