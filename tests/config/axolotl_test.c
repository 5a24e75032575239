/* Configs shaped like Axolotl's commonest examples for text models: the "# expect:" lines on top of
 * each say what ft answers. */
#include "config/config.h"
#include "tests/check.h"

#include <dirent.h>
#include <stdlib.h>

static void check_file(const char *name)
{
    char path[512], line[512];
    bool ok = false;
    int expectations = 0;
    struct ft_config c;
    snprintf(path, sizeof path, FT_ROOT "/tests/config/axolotl/%s", name);
    ft_status_clear();
    int rc = ft_config_read(&c, path, NULL, 0);
    FILE *f = fopen(path, "r");
    while (f && fgets(line, sizeof line, f) && strncmp(line, "# expect: ", 10) == 0) {
        char *what = line + 10, *text = strchr(what, ' ');
        line[strcspn(line, "\n")] = 0;
        expectations++;
        if (strncmp(what, "ok", 2) == 0)
            ok = true;
        else if (strncmp(what, "notice ", 7) == 0)
            CHECK_HAS(ft_status_notices(), text + 1);
        else
            CHECK_HAS(ft_status_report(), text + 1);
    }
    if (f)
        fclose(f);
    if (rc != (ok ? FT_OK : FT_ECONFIG))
        check_fail(name, 0, "ends with %d: %s", rc, ft_status_report());
    CHECK(expectations > 0);
    ft_config_fini(&c);
}

CASE(configs_shaped_like_axolotls_examples)
{
    struct dirent **list = NULL;
    int n = scandir(FT_ROOT "/tests/config/axolotl", &list, NULL, alphasort), files = 0;
    for (int i = 0; i < n; i++) {
        if (strstr(list[i]->d_name, ".yaml")) {
            printf("  %s\n", list[i]->d_name);
            check_file(list[i]->d_name);
            files++;
        }
        free(list[i]);
    }
    free(list);
    CHECK(files >= 15);
}
