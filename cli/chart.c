/* Draws curves with letters. */
#include "cli/chart.h"

#include <math.h>
#include <string.h>

enum { WIDTH = 64, HEIGHT = 12, CURVES = 2 };

struct chart {
    char picture[HEIGHT][WIDTH + 1];
    double value[CURVES][WIDTH]; /* means; NAN: none */
    double low, high;
    int64_t last; /* step */
};

static void find_last(struct chart *c, const struct ft_curve *curve)
{
    for (int64_t i = 0; i < curve->n; i++)
        c->last = curve->step[i] > c->last ? curve->step[i] : c->last;
}

/* The mean of what falls into each column. */
static void measure(struct chart *c, double value[WIDTH], const struct ft_curve *curve)
{
    int64_t count[WIDTH] = {0};
    for (int x = 0; x < WIDTH; x++)
        value[x] = 0;
    for (int64_t i = 0; i < curve->n; i++) {
        if (!isfinite(curve->value[i]) || curve->step[i] < 0)
            continue;
        const int x = (int)((double)curve->step[i] / (double)c->last * (WIDTH - 1));
        value[x] += curve->value[i];
        count[x]++;
    }
    for (int x = 0; x < WIDTH; x++) {
        value[x] = count[x] ? value[x] / (double)count[x] : (double)NAN;
        c->low = fmin(c->low, value[x]);
        c->high = fmax(c->high, value[x]);
    }
}

static void draw(struct chart *c, const double value[WIDTH], char mark, char both)
{
    for (int x = 0; x < WIDTH; x++) {
        if (isnan(value[x]))
            continue;
        const int y = (int)((c->high - value[x]) / (c->high - c->low) * (HEIGHT - 1) + 0.5);
        char *at = &c->picture[y][x];
        *at = *at == ' ' || *at == mark ? mark : both;
    }
}

void ft_chart_print(FILE *out, const char *title, const struct ft_chart_curve *curves, int n,
                    char both)
{
    struct chart c = {.low = INFINITY, .high = -INFINITY, .last = 1};
    for (int i = 0; i < n; i++)
        find_last(&c, curves[i].curve);
    for (int i = 0; i < n; i++)
        measure(&c, c.value[i], curves[i].curve);
    if (!(c.low <= c.high))
        return;
    c.high = c.high > c.low ? c.high : c.low + 1;
    memset(c.picture, ' ', sizeof c.picture);
    for (int i = 0; i < n; i++)
        draw(&c, c.value[i], curves[i].mark, both);
    fprintf(out, "\n%s\n", title);
    for (int y = 0; y < HEIGHT; y++) {
        int width = WIDTH;
        while (width && c.picture[y][width - 1] == ' ')
            width--;
        fprintf(out, "%9.4f |%.*s\n", c.high - (c.high - c.low) * y / (HEIGHT - 1), width,
                c.picture[y]);
    }
    fprintf(out, "%9s +", "");
    for (int x = 0; x < WIDTH; x++)
        fputc('-', out);
    fprintf(out, "\n%10s 0%*lld steps\n", "", WIDTH - 7, (long long)c.last);
}
