# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""Reports: numbers that are those of metrics.json, and a page that works in a real browser."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from fake_evaluation import START, write_evaluation
from headless_browser import Browser, find_browser
from hypothesis import given, settings
from hypothesis import strategies as st

from nightseg_ros.cli.main import main
from nightseg_ros.evaluation.report import (
    ReportError,
    interval,
    moment,
    number,
    signed,
    table,
    write_report,
)
from nightseg_ros.evaluation.report_figures import (
    ERROR_COLORS,
    POINTS,
    clock,
    draw_errors,
    encode,
    moments,
    thin,
)
from nightseg_ros.taxonomy import CAMVID11, UNLABELLED

FOUR = ('route=day', 'route=night', 'route=translate', 'route=auto')
HOSTILE = '"><script>document.title=1</script><img src=http://evil.example/x onerror=alert(1)>'


class Page(HTMLParser):
    """What a page says: its tables by caption, its tags, and all of its text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tables: dict[str, list[list[str]]] = {}
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ''
        self._stack: list[str] = []
        self._rows: list[list[str]] = []
        self._caption = ''
        self.feed(text)
        self.close()
        self.names = [tag for tag, _ in self.tags]
        self.sections = {attrs['id'] for tag, attrs in self.tags if tag == 'section'}

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._stack.append(tag)
        if tag == 'table':
            self._rows, self._caption = [], ''
        elif tag == 'tr':
            self._rows.append([])
        elif tag in ('td', 'th'):
            self._rows[-1].append('')

    def handle_endtag(self, tag: str) -> None:
        while self._stack and self._stack.pop() != tag:
            pass
        if tag == 'table':
            self.tables[self._caption] = [[c.strip() for c in row] for row in self._rows]

    def handle_data(self, data: str) -> None:
        if 'style' in self._stack:
            return
        self.text += data
        if 'caption' in self._stack:
            self._caption += data.strip()
        elif {'td', 'th'} & set(self._stack):
            self._rows[-1][-1] += data

    def column(self, caption: str, name: str) -> dict[str, str]:
        """Return row name → cell of a column, by its heading."""
        head, *rows = self.tables[caption]
        return {row[0]: row[head.index(name)] for row in rows}


@pytest.fixture(scope='module')
def kinds(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[dict[str, Any], Path]]:
    """Return metrics and folder of reports of every kind."""
    folder = tmp_path_factory.mktemp('reports')
    options: dict[str, dict[str, Any]] = {
        'one': {},
        'four': {'configurations': FOUR},
        'unlabelled': {'labelled': False},
        'pictures': {'drive': False},
        'long_names': {'name': 'x' * 300},
    }
    metrics = {name: write_evaluation(folder / name, **given) for name, given in options.items()}
    for name in options:
        write_report(folder / name)
    return {name: (metrics[name], folder / name) for name in options}


def page_of(folder: Path) -> Page:
    return Page((folder / 'report.html').read_text())


def report(folder: Path, metrics: Any = None) -> Page:
    """Write the report, of changed metrics where they are given, and return the page."""
    if metrics is not None:
        (folder / 'metrics.json').write_text(json.dumps(metrics))
    write_report(folder)
    return page_of(folder)


def markdown_tables(text: str) -> dict[str, list[list[str]]]:
    tables = {}
    for caption, body in re.findall(r'^\*\*(.+)\*\*\n\n((?:\|.*\n)+)', text, re.MULTILINE):
        lines = [re.split(r'(?<!\\)\|', line)[1:-1] for line in body.splitlines()]
        del lines[1]
        tables[caption] = [[cell.strip().strip('`') for cell in line] for line in lines]
    return tables


# -- content ---------------------------------------------------------------------------------


def test_the_numbers_are_those_of_metrics_json(kinds: Any) -> None:
    metrics, folder = kinds['four']
    page = page_of(folder)
    caption = 'night_drive: 12 labelled frames, the same for all'
    shown = page.column(caption, 'mIoU')
    differences = page.column('night_drive: difference to route=day', 'mIoU')
    accuracies = page.column(caption, 'pixel accuracy')
    assert list(shown) == list(FOUR) and list(differences) == list(FOUR[1:])
    paired = {item['run']: item['miou'] for item in metrics['compare']}
    for name in FOUR:
        entry = metrics['runs'][f'night_drive/{name}']['all']
        low, high = entry['miou_ci']
        assert shown[name] == f'{entry["miou"]:.3f} [{low:.3f}, {high:.3f}]'
        assert accuracies[name].startswith(f'{entry["pixel_acc"]:.3f} [')
        iou = page.column('IoU on night_drive', name)
        for known in CAMVID11.classes:
            value = entry['iou'][known]
            cell = next(text for row, text in iou.items() if row.split()[0] == known)
            assert cell == ('–' if value is None else f'{value:.3f}')
        if name != 'route=day':
            item = paired[f'night_drive/{name}']
            value = f'{item["difference"]:+.3f}'.replace('-', '−')
            assert differences[name].startswith(value + ' [')
            assert ('worse' in differences[name]) == (item['ci'][1] < 0)
    # a class of which there is no pixel is absent, not 0
    assert metrics['runs']['night_drive/route=day']['all']['iou']['bicyclist'] is None


def test_confusion_is_in_percent_of_the_labels(kinds: Any) -> None:
    metrics, folder = kinds['one']
    entry = metrics['runs']['night_drive']['all']
    page = page_of(folder)
    caption = 'night_drive, route=auto: rows are the labels, columns the masks'
    _, *rows = page.tables[caption]
    counts = np.array(entry['confusion'])
    for name, row, line in zip(CAMVID11.classes, rows, counts):
        assert row[0] == name
        if not line.sum():
            assert set(row[1:-1]) == {''} and row[-1] == '–'
            continue
        for cell, part in zip(row[1:], line / line.sum()):
            if cell == '<1':
                assert 0 < part < 0.005
            else:
                assert float(cell or 0) == pytest.approx(100 * part, abs=0.5)
        assert int(re.sub(r'\s', '', row[-1])) == line.sum()


def test_markdown_holds_the_same_tables(kinds: Any) -> None:
    _, folder = kinds['four']
    page = page_of(folder)
    found = markdown_tables((folder / 'report.md').read_text())
    assert found.keys() == page.tables.keys() and len(found) > 12
    for caption, rows in page.tables.items():

        def plain(cells: list[str]) -> list[str]:
            return [re.sub(r'[\s()]+', ' ', c).replace('\\', '').strip() for c in cells]

        assert [plain(row) for row in found[caption]] == [plain(row) for row in rows], caption


def test_it_says_what_was_measured_by_what_and_when(kinds: Any) -> None:
    page = page_of(kinds['one'][1])
    for words in (
        'a' * 64, 'b' * 64, 'nightseg evaluate /drives/night_drive.mcap --out scores',
        '2026-01-02 03:04 UTC', 'a processor', '2.13.0', '0.1.0', 'torch on cpu',
        '2023-11-14 22:13:20 UTC to 2023-11-14 22:13:21 UTC', '/camera/image_raw', 'research',
    ):  # fmt: skip
        assert words in page.text, words


def test_without_labels_or_time_it_says_so_and_shows_the_rest(kinds: Any) -> None:
    _, folder = kinds['unlabelled']
    page = page_of(folder)
    assert 'no labels' in page.text and 'how accurate the masks are is not known' in page.text
    assert page.sections >= {'timeline', 'flicker', 'router', 'speed', 'frames', 'provenance'}
    assert not page.sections & {'classes', 'confusion', 'calibration', 'splits'}
    assert '2.34 %' in (folder / 'report.md').read_text()
    # the truth and the errors of a frame are unknown as well
    assert 'Errors:' not in page.text and page.names.count('img') == 6
    pictures = page_of(kinds['pictures'][1]).sections
    assert not pictures & {'timeline', 'flicker'} and 'classes' in pictures


def test_configurations_without_labels_stand_in_one_table(tmp_path: Path) -> None:
    metrics = write_evaluation(tmp_path, labelled=False, configurations=FOUR)
    metrics['streams'] = 3
    for run in metrics['runs'].values():
        run['routing'] |= {'wrong_state_share': None, 'wrong_state_s': None, 'delay_s': None}
    page = report(tmp_path, metrics)
    assert list(page.column('night_drive: the same frames for all', 'label flicker')) == list(FOUR)
    assert '3 frames were in the networks at a time' in page.text
    rows = page.column('What the router did on night_drive', FOUR[0])
    assert 'frames in a wrong state' not in rows and 'switches of the route' in rows


def test_a_mask_that_two_configurations_share_is_drawn_once(tmp_path: Path) -> None:
    metrics = write_evaluation(tmp_path, configurations=FOUR)
    for first, second in zip(*(metrics['runs'][f'night_drive/{n}']['samples'] for n in FOUR[:2])):
        (tmp_path / second['labels']).write_bytes((tmp_path / first['labels']).read_bytes())
    page = report(tmp_path)
    assert page.text.count(f'mask, {FOUR[0]} and {FOUR[1]}') == 3
    assert f'errors, {FOUR[0]} and {FOUR[1]}: mIoU' in page.text


@pytest.mark.parametrize(
    ('frames', 'words'),
    [
        (0, 'how accurate the masks are is not known'),
        (1, 'no interval can be given'),
        (2, 'Only 1 block of neighbouring frames to draw'),
        (None, 'No frame was evaluated'),
    ],
)
def test_few_frames(tmp_path: Path, frames: int | None, words: str) -> None:
    metrics = write_evaluation(tmp_path, frames=frames or 0)
    entry = metrics['runs']['night_drive']['all']
    if frames == 1:
        entry |= {key: None for key in entry if key.endswith('_ci')}
    if frames is None:
        metrics.update(runs={}, sets={}, compare=[], configurations=[])
        (tmp_path / 'frames.jsonl').unlink()
    page = report(tmp_path, metrics)
    assert words in page.text and not re.search(r'\b(nan|None)\b', page.text)


@pytest.mark.parametrize('seed', range(12))
def test_values_of_another_kind_are_dashes_and_no_crash(tmp_path: Path, seed: int) -> None:
    """A third of all values, of every depth, is something else."""
    metrics = write_evaluation(tmp_path, frames=3, samples=seed < 3, configurations=FOUR[:2])
    rng = np.random.default_rng(seed)
    others = (None, float('nan'), float('inf'), 'text', [], {}, -1, True, 10**30)

    def spoiled(data: Any) -> Any:
        if rng.random() < (0.33 if not isinstance(data, (dict, list)) else 0.05):
            return others[rng.integers(len(others))]
        if isinstance(data, dict):
            kept = ('set', 'configuration', 'name')
            return {k: v if k in kept else spoiled(v) for k, v in data.items()}
        return [spoiled(item) for item in data] if isinstance(data, list) else data

    metrics |= {key: spoiled(metrics[key]) for key in metrics.keys() - {'version', 'taxonomy'}}
    report(tmp_path, metrics)
    text = (tmp_path / 'report.html').read_text()
    # in cells of numbers; what should be words is shown as it came
    assert not re.search('<td class="[^"w]*"[^>]*>(nan|inf|None|text)', text)


def test_read_errors_are_listed_and_said_at_the_top(tmp_path: Path) -> None:
    metrics = write_evaluation(tmp_path)
    [source] = metrics['sets']['night_drive']['sources']
    source.update(failed=3, losses=['message 7: truncated JPEG', 'the last chunk is cut off'])
    metrics['runs']['night_drive']['failed'] = 3
    page = report(tmp_path, metrics)
    assert '3 frames of night_drive got no mask' in page.text
    what = [row[1] for row in page.tables['What could not be read'][1:]]
    assert what == source['losses']


def test_names_from_outside_are_text_and_never_markup(tmp_path: Path) -> None:
    bad = HOSTILE
    metrics = write_evaluation(tmp_path, name='drive')
    text = json.dumps(metrics)
    for word in (
        'drive', 'pedestrian', '/camera/image_raw', 'a processor', '0.1.0', 'research',
        'night.safetensors', 'route=auto',
    ):  # fmt: skip
        text = text.replace(f'"{word}"', json.dumps(f'{word}{bad}'))
    text = text.replace('/drives/drive.mcap', json.dumps(f'/drives/{bad}')[1:-1])
    (tmp_path / 'metrics.json').write_text(text)
    lines = (tmp_path / 'frames.jsonl').read_text().splitlines()
    changed = []
    for line in map(json.loads, lines):
        line.update(run=f'drive{bad}', camera=bad, state=f'"/>{bad}', route=bad, source=bad)
        changed.append(json.dumps(line))
    (tmp_path / 'frames.jsonl').write_text('\n'.join(changed))
    page = report(tmp_path)
    assert bad in page.text
    tags = {tag for tag, _ in page.tags}
    assert 'script' not in tags and not any(
        name.startswith('on') for _, attrs in page.tags for name in attrs
    )
    sources = [attrs.get('src') or '' for tag, attrs in page.tags if tag == 'img']
    assert sources and all(src.startswith('data:image/jpeg;base64,') for src in sources)
    for line in (tmp_path / 'report.md').read_text().splitlines():
        bare = re.sub(r'`[^`]*`', '', line)
        assert not re.search(r'(?<!\\)<(script|img)', bare), line


def test_nothing_points_outside(kinds: Any) -> None:
    _, folder = kinds['four']
    for _, attrs in page_of(folder).tags:
        for name in ('href', 'src', 'srcset', 'action', 'data'):
            assert (attrs.get(name) or '#').startswith(('#', 'data:image/jpeg;base64,'))
        assert 'url(' not in (attrs.get('style') or '')
    html = (folder / 'report.html').read_text()
    assert not re.search(r'@import|url\((?!#)|<link|<script', html)


def test_samples_outside_the_folder_or_lost_are_not_shown(tmp_path: Path) -> None:
    metrics = write_evaluation(tmp_path / 'out')
    next((tmp_path / 'out' / 'samples').glob('*.jpg')).unlink()
    page = report(tmp_path / 'out')
    assert page.names.count('img') == 8 and 'cannot be shown' in page.text
    cv2.imwrite(str(tmp_path / 'secret.jpg'), np.zeros((60, 96, 3), np.uint8))
    for sample in metrics['runs']['night_drive']['samples']:
        sample['image'] = '../secret.jpg'
    page = report(tmp_path / 'out', metrics)
    assert 'img' not in page.names and 'lies outside' in page.text


def test_ten_thousand_frames_stay_a_small_page(tmp_path: Path) -> None:
    write_evaluation(tmp_path, frames=10_000)
    lines = (tmp_path / 'frames.jsonl').read_text().splitlines()
    # one bad frame in 10,000 has to stay visible
    bad = json.loads(lines[7_000])
    bad['miou'] = 0.0
    lines[7_000] = json.dumps(bad)
    (tmp_path / 'frames.jsonl').write_text('\n'.join(lines))
    page = report(tmp_path)
    assert (tmp_path / 'report.html').stat().st_size < 1_000_000
    assert 'mIoU: 10000 values from 0.000 to' in page.text


# -- errors and the command ------------------------------------------------------------------


@pytest.mark.parametrize(
    ('content', 'words'),
    [
        (None, 'does not exist'),
        ('{', 'cannot be read'),
        ('[1]', 'version'),
        ('{"version": 1}', 'version 1'),
        ('{"version": 2}', 'taxonomy'),
    ],
)
def test_a_folder_without_an_evaluation(
    tmp_path: Path, content: str | None, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    if content is not None:
        (tmp_path / 'metrics.json').write_text(content)
    with pytest.raises(ReportError, match=words):
        write_report(tmp_path)
    assert main(['report', str(tmp_path)]) == 2
    [line] = capsys.readouterr().err.strip().splitlines()
    assert words in line and 'metrics.json' in line
    assert not list(tmp_path.glob('report.*'))


def test_the_command_makes_a_report_again(kinds: Any, capsys: pytest.CaptureFixture[str]) -> None:
    _, folder = kinds['one']
    first = {name: (folder / name).read_bytes() for name in ('report.html', 'report.md')}
    (folder / 'report.html').write_text('old')
    assert main(['report', str(folder)]) == 0
    assert str(folder / 'report.md') in capsys.readouterr().out
    assert {name: (folder / name).read_bytes() for name in first} == first


# -- parts -----------------------------------------------------------------------------------


def test_numbers_in_words() -> None:
    assert number(0.12345) == '0.123' and number(-0.5) == '−0.500' and number(-1e-9) == '0.000'
    assert number(None) == number(float('nan')) == number(float('inf')) == '–'
    assert signed(0.0299) == '+0.030' and signed(-0.03) == '−0.030' and signed(0.0) == '0.000'
    assert interval((0.1, 0.25)) == '[0.100, 0.250]' and interval(None) == ''
    assert interval((-0.1, 0.2), signed) == '[−0.100, +0.200]'
    assert (clock(59.6), clock(61), clock(3725)) == ('1:00', '1:01', '1:02:05')
    assert moment(START) == '2023-11-14 22:13:20.00 UTC' and moment(1_500_000_000) == '1.50 s'


def test_a_column_that_says_one_thing_is_left_out() -> None:
    rows = [('a', 'x', '1'), ('a', 'y', '2')]
    found = table('', ('set', 'name', 'n'), rows, words=2, optional=(0, 1))
    assert found is not None and found['columns'] == ['name', 'n']
    assert table('', ('n',), []) is None


@settings(deadline=None, max_examples=50)
@given(
    st.lists(st.floats(0, 1, allow_subnormal=False), min_size=1, max_size=300),
    st.integers(1, 60),
)
def test_a_thinned_curve_keeps_its_extremes(values: list[float], points: int) -> None:
    y = np.array(values)
    x, low, mean, high = thin(np.linspace(0, 1, len(y)), y, points)
    assert len(x) <= max(points, 1) or len(y) <= points
    assert low.min() == y.min() and high.max() == y.max()
    assert (low <= mean + 1e-9).all() and (mean <= high + 1e-9).all()
    assert (np.diff(x) >= 0).all()


def test_a_single_frame_stays_visible_and_a_pause_holds_no_state() -> None:
    held = np.zeros(20_000, bool)
    held[7000] = True
    shown = np.flatnonzero(moments(np.linspace(0, 1, 20_000), held)) / POINTS
    assert len(shown) == 1 and shown[0] == pytest.approx(0.35, abs=0.003)
    x = np.array([0, 0.1, 0.2, 0.9, 1.0])
    shown = moments(x, np.ones(5, bool))
    edges = np.flatnonzero(np.diff(shown)) / POINTS
    assert shown[0] and shown[-1] and edges == pytest.approx([0.3, 0.9], abs=0.01)


def test_errors_are_drawn_where_they_are() -> None:
    image = np.full((4, 6, 3), 100, np.uint8)
    truth = np.zeros((4, 6), np.uint8)
    labels = truth.copy()
    labels[0, 0], truth[3] = 5, UNLABELLED
    labels[1, 1] = UNLABELLED
    drawn = draw_errors(image, labels, truth).astype(int)

    def nearest(y: int, x: int) -> int:
        return int(np.abs(drawn[y, x] - ERROR_COLORS).sum(1).argmin())

    assert (nearest(2, 2), nearest(0, 0), nearest(1, 1), nearest(3, 3)) == (0, 1, 1, 2)


def test_pictures_that_fit_no_budget_are_refused() -> None:
    image = np.random.default_rng(0).integers(0, 256, (200, 300, 3), np.uint8)
    pictures = [{'image': image} for _ in range(4)]
    assert encode(pictures, 10**7) and pictures[0]['width'] == 300
    assert encode(pictures, 100_000) and pictures[0]['width'] < 300
    assert sum(len(p['uri']) for p in pictures) <= 100_000
    assert not encode(pictures, 1000)


# -- in a browser ----------------------------------------------------------------------------

#: Texts whose contrast with what lies behind them is below 4.5 to 1 (WCAG 2, level AA).
CONTRAST = """(() => {
  const rgba = text => {
    const parts = text.match(/[-\\d.]+(e-?\\d+)?/g).map(Number);
    const unit = text.startsWith('color(') ? 255 : 1;
    return [...parts.slice(0, 3).map(v => v * unit), parts[3] ?? 1];
  };
  const over = (top, below) => [0, 1, 2].map(i => top[i] * top[3] + below[i] * (1 - top[3]));
  const behind = element => {
    const layers = [];
    for (let e = element; e; e = e.parentElement)
      layers.unshift(getComputedStyle(e).backgroundColor);
    return layers.map(rgba).reduce((below, top) => over(top, below), [255, 255, 255]);
  };
  const light = color => {
    const [r, g, b] = color.map(v => v / 255).map(
      v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const bad = [];
  for (const element of document.querySelectorAll('body *')) {
    const own = [...element.childNodes].some(n => n.nodeType === 3 && n.data.trim());
    if (!own || element.tagName === 'title' || !element.checkVisibility()) continue;
    const style = getComputedStyle(element), back = behind(element);
    const ink = element instanceof SVGElement ? style.fill : style.color;
    const [a, b] = [light(over(rgba(ink), back)), light(back)];
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (ratio < 4.5) bad.push([ratio.toFixed(2), element.outerHTML.slice(0, 80)]);
  }
  return bad;
})()"""
#: Everything that sticks out of the page sideways, unless it can be scrolled by itself.
WIDTH = '[document.documentElement.scrollWidth, innerWidth]'
#: Pictures that did not load, and all there are.
PICTURES = """(async () => {
  const all = [...document.images];
  await Promise.all(all.map(i => i.decode().catch(() => null)));
  return [all.length, all.filter(i => !(i.naturalWidth > 0)).length];
})()"""
#: What assistive technology would miss.
UNNAMED = """[
  ...[...document.images].filter(i => !i.alt),
  ...[...document.querySelectorAll('svg')].filter(s => !s.querySelector('title')?.textContent),
  ...[...document.querySelectorAll('table')].filter(
    t => !(t.caption && t.querySelector('thead th[scope=col]')
      && t.querySelector('tbody th[scope=row]'))),
  ...[...document.querySelectorAll('th')].filter(t => !t.textContent.trim()),
  ...[...document.querySelectorAll('nav a')].filter(a => !document.querySelector(a.hash)),
].map(e => e.outerHTML.slice(0, 80))"""


@pytest.fixture(scope='module')
def browser() -> Iterator[Browser]:
    executable = find_browser()
    if executable is None:
        pytest.skip('no Chromium is installed')
    with Browser(executable) as running:
        yield running


KINDS = ('one', 'four', 'unlabelled', 'pictures', 'long_names')


@pytest.mark.parametrize('dark', [False, True], ids=['light', 'dark'])
@pytest.mark.parametrize('width', [360, 1280])
@pytest.mark.parametrize('kind', KINDS)
def test_in_a_browser(browser: Browser, kinds: Any, kind: str, width: int, dark: bool) -> None:
    browser.open(kinds[kind][1] / 'report.html', width=width, dark=dark)
    browser.evaluate("document.querySelectorAll('details').forEach(d => { d.open = true })")
    assert browser.complaints == []
    outside = [url for url in browser.requests if not url.startswith(('file:', 'data:'))]
    assert outside == [] and sum(url.startswith('file:') for url in browser.requests) == 1
    wide, inner = browser.evaluate(WIDTH)
    assert wide <= inner == width
    there, broken = browser.evaluate(PICTURES)
    assert there > 0 and broken == 0
    assert browser.evaluate(CONTRAST) == []
    assert browser.evaluate(UNNAMED) == []


def test_injected_markup_does_nothing_in_a_browser(browser: Browser, tmp_path: Path) -> None:
    metrics = write_evaluation(tmp_path)
    metrics['machine'] = {HOSTILE: HOSTILE}
    metrics['command'] = ['nightseg', HOSTILE]
    report(tmp_path, metrics)
    browser.open(tmp_path / 'report.html', width=1280)
    assert browser.evaluate('document.title') == 'night_drive'
    assert browser.evaluate('document.scripts.length') == 0
    assert HOSTILE in browser.evaluate('document.body.textContent')
    assert browser.complaints == []
    # were markup to get in all the same, the page's own policy would stop it
    broken = (tmp_path / 'report.html').read_text().replace('<h1>', f'<h1>{HOSTILE[2:]}', 1)
    (tmp_path / 'broken.html').write_text(broken)
    browser.open(tmp_path / 'broken.html', width=1280)
    assert browser.evaluate('document.title') == 'night_drive'
    assert len(browser.complaints) >= 2 and all('Policy' in text for text in browser.complaints)
    assert browser.blocked == [url for url in browser.requests if url.startswith('http')]
