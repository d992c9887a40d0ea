"""Draws bars, as SVG that is readable on light and on dark pages."""

import html

WIDTH = 760
MARGIN = 16
NAMES = 130
BAR = 16
STEP = 22
STYLE = """
  text { font: 12px system-ui, -apple-system, 'Segoe UI', sans-serif; fill: #24292f }
  .title { font-size: 16px; font-weight: 600 }
  .panel { font-size: 13px; font-weight: 600 }
  .aside { font-size: 11px; fill: #57606a }
  .own { font-weight: 600 }
  .bar { fill: #8c959f }
  .bar.own { fill: #0969da }
  .axis { stroke: #8c959f; stroke-width: 1 }
  @media (prefers-color-scheme: dark) {
    text { fill: #e6edf3 }
    .aside { fill: #9198a1 }
    .bar { fill: #6e7681 }
    .bar.own { fill: #4493f8 }
    .axis { stroke: #6e7681 }
  }
"""


def draw(title, panels, own, asides):
    """A panel of bars for each of (title, [(name, value)]), each on a scale of its own; the bar of `own` stands out."""
    body = []

    def text(x, y, words, kind, end=False):
        anchor = ' text-anchor="end"' if end else ""
        body.append(f'  <text x="{x:g}" y="{y:g}" class="{kind}"{anchor}>{html.escape(words)}</text>')

    y = MARGIN + 14
    text(MARGIN, y, title, "title")
    left = MARGIN + NAMES
    # Room for the figure behind the longest bar.
    room = WIDTH - left - MARGIN - 50
    for name, bars in panels:
        y += 34
        text(MARGIN, y, name, "panel")
        y += 10
        body.append(f'  <path d="M{left - 2} {y - 2}v{STEP * len(bars)}" class="axis"/>')
        most = max(value for _, value in bars)
        for label, value in bars:
            kind = " own" if label == own else ""
            text(left - 8, y + 12, label, kind.strip() or "name", end=True)
            length = max(room * value / most, 1)
            body.append(f'  <rect x="{left}" y="{y}" width="{length:.1f}" height="{BAR}" rx="2" class="bar{kind}"/>')
            text(left + length + 6, y + 12, f"{value:.1f}", kind.strip() or "value")
            y += STEP
    y += 12
    for aside in asides:
        y += 15
        text(MARGIN, y, aside, "aside")
    height = y + MARGIN
    described = html.escape(title)
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}"'
            f' role="img" aria-label="{described}">',
            f"  <title>{described}</title>",
            f"  <style>{STYLE}  </style>",
            *body,
            "</svg>\n",
        ]
    )
