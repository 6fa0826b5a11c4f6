# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""Reports: numbers that are those of metrics.json, and a page that works in a real browser."""

from html import unescape
from html.parser import HTMLParser
import json
from pathlib import Path
import re
import shutil
from typing import Any

from evaluated_drive import config, LABEL_TOPIC, picture, START, truth, write_drive
from headless_browser import Browser, find_browser
from nightseg_ros.cli.main import main
from nightseg_ros.evaluation.evaluate import evaluate
from nightseg_ros.evaluation.metrics import BootstrapConfig
from nightseg_ros.evaluation.report import interval, moment, number, signed, write_report
from nightseg_ros.evaluation.report_figures import clock, draw_errors, ERROR_COLORS
from nightseg_ros.evaluation.sources import dataset_shards, sequence_shards
from nightseg_ros.evaluation.variants import configurations, Variants
from nightseg_ros.taxonomy import CAMVID11, UNLABELLED
import numpy as np
import pytest
from tiny_data import imwrite
from tiny_weights import weights_config

FOUR = ('route=day', 'route=night', 'route=translate', 'route=auto')
HOSTILE = '"><script>document.title=1</script><img src=http://evil.example/x onerror=alert(1)>'


def plain(html: str) -> str:
    """Return the text of a piece of a page."""
    return unescape(re.sub(r'<[^>]*>', '', html)).strip()


class Page(HTMLParser):
    """What a page says: its tables by caption, its tags, and all of its text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(html)
        self.close()
        self.names = [tag for tag, _ in self.tags]
        self.sections = {attrs['id'] for tag, attrs in self.tags if tag == 'section'}
        self.text = plain(re.sub(r'<style.*?</style>', '', html, flags=re.DOTALL))
        self.tables: dict[str, list[list[str]]] = {}
        for part in re.findall(r'<table.*?</table>', html, re.DOTALL):
            caption, *rows = re.findall(r'<caption.*?</caption>|<tr.*?</tr>', part, re.DOTALL)
            cells = (re.findall(r'<t[dh]\b.*?</t[dh]>', row, re.DOTALL) for row in rows)
            self.tables[plain(caption)] = [[plain(cell) for cell in row] for row in cells]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def column(self, caption: str, name: str) -> dict[str, str]:
        """Return row name → cell of a column, by its heading."""
        head, *rows = self.tables[caption]
        return {row[0]: row[head.index(name)] for row in rows}


@pytest.fixture(scope='module')
def kinds(tmp_path_factory):
    """Return metrics and folder of real evaluations of every kind, with their reports."""
    folder = tmp_path_factory.mktemp('reports')
    base = config(weights_config(folder / 'weights'))
    one, four = (Variants(configurations(base, names)) for names in ((), FOUR))
    drive = write_drive(folder / 'night_drive', 12, every=2)
    for name, pixels in (('images', picture(0, 4)[..., ::-1]), ('labels', truth(0))):
        for index in range(3):
            imwrite(folder / 'pictures' / name / f'a_{index}.png', pixels)
    labelled = sequence_shards([drive], labels=[LABEL_TOPIC], light='day')
    bare = sequence_shards([drive])
    pictures = dataset_shards([f'folder:{folder}/pictures'], CAMVID11)
    bootstrap = BootstrapConfig(block_s=0.2, resamples=99)
    settings: Any = {'bootstrap': bootstrap, 'command': ['nightseg', 'evaluate']}
    found = {}
    for name, variants, shards in (
        ('one', one, labelled), ('four', four, labelled), ('unlabelled', one, bare),
        ('pictures', one, pictures),
    ):  # fmt: skip
        out = folder / 'out' / name
        found[name] = evaluate(shards, variants, out, **settings), out
        write_report(out)
    long = shutil.copytree(found['one'][1], folder / 'out' / 'long_names')
    for file in ('metrics.json', 'frames.jsonl'):
        text = (long / file).read_text()
        (long / file).write_text(text.replace('"night_drive"', json.dumps('x' * 300)))
    write_report(long)
    return found | {'long_names': (found['one'][0], long)}


@pytest.fixture
def copied(kinds, tmp_path):
    """Return how to copy an evaluation of a kind: its metrics and its folder, to be changed."""

    def copy(kind: str = 'one') -> tuple[dict[str, Any], Path]:
        out = shutil.copytree(kinds[kind][1], tmp_path / 'out')
        return json.loads((out / 'metrics.json').read_text()), out

    return copy


def page_of(folder: Path) -> Page:
    return Page((folder / 'report.html').read_text())


def report(folder: Path, metrics: Any = None) -> Page:
    """Write the report, of changed metrics where they are given, and return the page."""
    if metrics is not None:
        (folder / 'metrics.json').write_text(json.dumps(metrics))
    write_report(folder)
    return page_of(folder)


# -- content ---------------------------------------------------------------------------------


def test_the_numbers_are_those_of_metrics_json(kinds):
    metrics, folder = kinds['four']
    page = page_of(folder)
    caption = 'night_drive: 6 labelled frames'
    shown, accuracies = (page.column(caption, name) for name in ('mIoU', 'pixel accuracy'))
    differences = [row for name in FOUR[1:] for row in (name, f'{name} − {FOUR[0]}')]
    assert list(shown) == [FOUR[0], *differences]
    for name in FOUR:
        entry = metrics['runs'][f'night_drive/{name}']['all']
        low, high = entry['miou_ci']
        assert shown[name] == f'{entry["miou"]:.3f} [{low:.3f}, {high:.3f}]'
        assert accuracies[name].startswith(f'{entry["pixel_acc"]:.3f} [')
        iou = page.column('IoU on night_drive', name)
        for row, cell in list(iou.items())[: len(CAMVID11)]:
            value = entry['iou'][row.split()[0]]
            assert cell.split()[0] == ('–' if value is None else f'{value:.3f}')
    assert page.tables['Over the frames of night_drive'][0] == ['measure', *FOUR]
    for item in metrics['compare']:
        gap, low_high = shown[f'{item["run"][12:]} − {FOUR[0]}'], item['miou']['ci']
        assert gap.startswith(f'{signed(item["miou"]["difference"])} [')
        assert ('worse' in gap, 'better' in gap) == (low_high[1] < 0, low_high[0] > 0)


def test_confusion_is_in_percent_of_the_labels(kinds):
    metrics, folder = kinds['one']
    caption = 'night_drive, route=auto: rows are the labels, columns the masks'
    _, *rows = page_of(folder).tables[caption]
    counts = np.array(metrics['runs']['night_drive']['all']['confusion'])
    for name, row, line in zip(CAMVID11.classes, rows, counts):
        assert row[0] == name
        if not line.sum():
            assert set(row[1:-1]) == {''} and row[-1] == '–'
            continue
        for cell, part in zip(row[1:], line / line.sum()):
            few = cell == '<1' and 0 < part < 0.005
            assert few or float(cell or 0) == pytest.approx(100 * part, abs=0.5)
        assert int(re.sub(r'\s', '', row[-1])) == line.sum()


def test_it_says_what_was_measured_by_what_and_when(kinds):
    metrics, folder = kinds['one']
    page = page_of(folder)
    weights = metrics['pipeline']['weights']['night']
    for words in (
        weights['sha256'], weights['license'], 'nightseg evaluate', metrics['created'][:10],
        metrics['machine']['cpu'], metrics['nightseg'], 'torch on cpu', '/camera/image_raw',
        '2023-11-14 22:13:20 UTC to 2023-11-14 22:13:21 UTC', 'state', 'motion compensated',
    ):  # fmt: skip
        assert words in page.text, words
    rows = {row[0]: row[1] for row in page.tables['Over the frames of night_drive']}
    routing = metrics['runs']['night_drive']['routing']
    assert rows['switches of the route'] == str(routing['switches']) == '1'
    assert rows['frames in a wrong state'] == f'{100 * routing["wrong_state_share"]:.1f} %'


def test_without_labels_or_time_it_says_so_and_shows_the_rest(kinds):
    metrics, folder = kinds['unlabelled']
    page = page_of(folder)
    assert 'no labels' in page.text and 'how accurate the masks are is not known' in page.text
    assert page.sections >= {'timeline', 'router', 'frames', 'provenance'}
    assert not page.sections & {'classes', 'confusion', 'calibration', 'splits'}
    names = {row[0] for row in page.tables['Over the frames of night_drive']}
    assert 'frames in a wrong state' not in names and 'switches of the route' in names
    flicker = metrics['runs']['night_drive']['flicker']['all']['warped']
    assert f'{100 * flicker:.2f} %' in page.text
    # the truth and the errors of a frame are unknown as well
    assert 'Errors:' not in page.text and page.names.count('img') == 12
    pictures = page_of(kinds['pictures'][1]).sections
    assert 'timeline' not in pictures and 'classes' in pictures


def test_a_mask_that_two_configurations_share_is_drawn_once(copied):
    metrics, folder = copied('four')
    samples = [metrics['runs'][f'night_drive/{name}']['samples'] for name in FOUR[:2]]
    for first, second in zip(*samples):
        shutil.copy(folder / first['labels'], folder / second['labels'])
    text = report(folder).text
    assert text.count(f'mask, {FOUR[0]} and {FOUR[1]}') == len(samples[0])
    assert f'errors, {FOUR[0]} and {FOUR[1]}' in text


def test_a_timeline_shows_what_differs_for_each_configuration(copied):
    _, folder = copied('four')
    for file in ('metrics.json', 'frames.jsonl'):
        text = (folder / file).read_text()
        for name in FOUR[:2]:
            text = text.replace(f'{name}"', f'{"x" * 40}{name}"')
        (folder / file).write_text(text)
    lines = [json.loads(line) for line in (folder / 'frames.jsonl').open()]
    for line in lines[1::4]:
        line['state'] = 'glare'
    (folder / 'frames.jsonl').write_text('\n'.join(map(json.dumps, lines)))
    text = report(folder).text
    for name in ('mIoU', 'state'):
        for place in (1, 2):
            assert f'{name}, {place}: {"x" * 30}…' in text
    assert 'light score, 1:' not in text


@pytest.mark.parametrize(
    ('frames', 'words'),
    [
        (1, 'no interval can be given'),
        (2, 'Only 1 block to draw'),
        (None, 'No frame was evaluated'),
    ],
)
def test_few_frames(copied, frames, words):
    metrics, folder = copied()
    metrics['sets']['night_drive']['units'] = 1
    entry = metrics['runs']['night_drive']['all']
    if frames == 1:
        entry |= {key: None for key in entry if key.endswith('_ci') and key != 'iou_ci'}
    if frames is None:
        metrics.update(runs={}, sets={}, compare=[])
        (folder / 'frames.jsonl').unlink()
    page = report(folder, metrics)
    assert words in page.text and not re.search(r'\b(nan|None)\b', page.text)


def test_read_errors_are_listed_and_said_at_the_top(copied):
    metrics, folder = copied()
    [source] = metrics['sets']['night_drive']['sources']
    source.update(failed=3, losses=['message 7: truncated JPEG', 'the last chunk is cut off'])
    metrics['runs']['night_drive']['failed'] = 3
    page = report(folder, metrics)
    assert '3 frames of night_drive got no mask' in page.text
    assert list(page.column('What could not be read', 'what').values())[-1] == source['losses'][1]
    assert len(page.tables['What could not be read']) == 3


def test_names_from_outside_are_text_and_never_markup(copied):
    metrics, folder = copied()
    weights = metrics['pipeline']['weights']['night']
    metrics['machine'][HOSTILE] = HOSTILE
    text = json.dumps(metrics)
    for word in (
        'night_drive', 'pedestrian', '/camera/image_raw', metrics['machine']['cpu'],
        metrics['nightseg'], weights['license'], weights['file'], 'evaluate',
    ):  # fmt: skip
        text = text.replace(json.dumps(word), json.dumps(f'{word}{HOSTILE}'))
    path = metrics['sets']['night_drive']['sources'][0]['path']
    (folder / 'metrics.json').write_text(text.replace(path, json.dumps(HOSTILE)[1:-1]))
    names = dict.fromkeys(('camera', 'state', 'route', 'source'), HOSTILE)
    names['run'] = f'night_drive{HOSTILE}'
    lines = [json.loads(line) | names for line in (folder / 'frames.jsonl').open()]
    (folder / 'frames.jsonl').write_text('\n'.join(map(json.dumps, lines)))
    page = report(folder)
    assert HOSTILE in page.text and 'timeline' in page.sections
    assert 'script' not in page.names and page.names.count('img')
    for tag, attributes in page.tags:
        assert not any(name.startswith('on') for name in attributes)
        assert tag != 'img' or attributes['src'].startswith('data:image/jpeg;base64,')


def test_nothing_points_outside(kinds):
    _, folder = kinds['four']
    for _, attrs in page_of(folder).tags:
        for name in ('href', 'src', 'srcset', 'action', 'data'):
            assert (attrs.get(name) or '#').startswith(('#', 'data:image/jpeg;base64,'))
        assert 'url(' not in (attrs.get('style') or '')
    html = (folder / 'report.html').read_text()
    assert not re.search(r'@import|url\((?!#)|<link|<script', html)


def test_samples_outside_the_folder_or_lost_are_not_shown(copied):
    metrics, folder = copied()
    before = page_of(folder).names.count('img')
    samples = metrics['runs']['night_drive']['samples']
    (folder / samples[0]['image']).unlink()
    page = report(folder)
    assert page.names.count('img') == before - 4 and 'cannot be shown' in page.text
    imwrite(folder.parent / 'secret.jpg', np.zeros((36, 64, 3), np.uint8))
    for sample in samples:
        sample['image'] = '../secret.jpg'
    page = report(folder, metrics)
    assert 'img' not in page.names and 'lies outside' in page.text


def test_ten_thousand_frames_stay_a_small_page_and_one_bad_frame_is_seen(copied):
    _, folder = copied()
    lines = [json.loads(line) for line in (folder / 'frames.jsonl').open()]
    rng = np.random.default_rng(0)
    with (folder / 'frames.jsonl').open('w') as file:
        for index in range(10_000):
            line = lines[index % 12] | {'stamp': START + index * 10**8}
            line |= {'miou': 0.0 if index == 7000 else 0.5 + 0.1 * rng.random(), 'state': 'day'}
            line |= {'error': 'withheld'} if index == 3000 else {}
            file.write(json.dumps(line) + '\n')
    write_report(folder)
    text = (folder / 'report.html').read_text()
    assert len(text) < 1_000_000
    svg = text.partition('id="timeline"')[2].partition('Time since')[0]
    # the lowest point of the curve lies on the line of 0, far below all others
    curve = max(re.findall(r'<path d="(M [^"]+)"', svg), key=len)
    heights = np.sort([float(y) for y in re.findall(r'[ML] \S+ (\S+)', curve)])
    assert heights[-1] - heights[-4] > 3 * (heights[-4] - heights[0])
    assert 'no mask' in svg


@pytest.mark.parametrize(
    ('seconds', 'length'),
    [([1, 1.1, 1.2, 1.7e9, 1.7e9 + 0.1], '0:01'), ([1.7e9, 1.7e9 + 0.1, 1.2, 1.3], '0:01'),
     ([5, 5.1, 1.7e9, 5.3, 5.4], '0:02')],
    ids=['set ahead', 'set back', 'one wild stamp'],
)  # fmt: skip
def test_a_clock_that_was_set_leaves_a_timeline_readable(copied, seconds, length):
    _, folder = copied()
    line = json.loads((folder / 'frames.jsonl').open().readline())
    lines = [json.dumps(line | {'stamp': round(second * 10) * 10**8}) for second in seconds]
    (folder / 'frames.jsonl').write_text('\n'.join(lines))
    assert f': {len(seconds)} frames, {length}' in report(folder).text


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
def test_a_folder_without_an_evaluation(tmp_path, content, words, capsys):
    if content is not None:
        (tmp_path / 'metrics.json').write_text(content)
    assert main(['report', str(tmp_path)]) == 2
    [line] = capsys.readouterr().err.strip().splitlines()
    assert words in line and 'metrics.json' in line
    assert not list(tmp_path.glob('report.*'))


def test_the_command_makes_a_report_again(kinds, capsys):
    _, folder = kinds['one']
    html = folder / 'report.html'
    first = html.read_bytes()
    html.write_text('old')
    assert main(['report', str(folder)]) == 0
    assert str(html) in capsys.readouterr().out and html.read_bytes() == first


# -- parts -----------------------------------------------------------------------------------


def test_numbers_in_words():
    assert number(0.12345) == '0.123' and number(-0.5) == '−0.500' and number(-1e-9) == '0.000'
    assert number(None) == '–'
    assert signed(0.0299) == '+0.030' and signed(-0.03) == '−0.030' and signed(0.0) == '0.000'
    assert interval((0.1, 0.25)) == '[0.100, 0.250]' and interval(None) == ''
    assert interval((-0.1, 0.2), signed) == '[−0.100, +0.200]'
    assert (clock(59.6), clock(61), clock(3725)) == ('1:00', '1:01', '1:02:05')
    assert moment(START) == '2023-11-14 22:13:20.00 UTC' and moment(1_500_000_000) == '1.50 s'


def test_errors_are_drawn_where_they_are():
    image = np.full((4, 6, 3), 100, np.uint8)
    truth = np.zeros((4, 6), np.uint8)
    labels = truth.copy()
    labels[0, 0], truth[3] = 5, UNLABELLED
    labels[1, 1] = UNLABELLED
    drawn = draw_errors(image, labels, truth).astype(int)

    def nearest(y: int, x: int) -> int:
        return int(np.abs(drawn[y, x] - ERROR_COLORS).sum(1).argmin())

    assert (nearest(2, 2), nearest(0, 0), nearest(1, 1), nearest(3, 3)) == (0, 1, 1, 2)


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
def browser():
    executable = find_browser()
    if executable is None:
        pytest.skip('no Chromium is installed')
    with Browser(executable) as running:
        yield running


@pytest.mark.parametrize(('width', 'dark'), [(360, True), (1280, False)])
@pytest.mark.parametrize('kind', ['one', 'four', 'unlabelled', 'pictures', 'long_names'])
def test_in_a_browser(browser, kinds, kind, width, dark):
    browser.show(kinds[kind][1] / 'report.html', width=width, dark=dark)
    browser.evaluate("document.querySelectorAll('details').forEach(d => { d.open = true })")
    assert browser.complaints == []
    outside = [url for url in browser.requests if not url.startswith(('file:', 'data:'))]
    assert outside == [] and sum(url.startswith('file:') for url in browser.requests) == 1
    # tables that are wider can be scrolled by themselves
    wide, inner = browser.evaluate('[document.documentElement.scrollWidth, innerWidth]')
    assert wide <= inner == width
    there, broken = browser.evaluate(PICTURES)
    assert there > 0 and broken == 0
    assert browser.evaluate(CONTRAST) == []
    assert browser.evaluate(UNNAMED) == []


def test_the_own_policy_of_a_page_stops_markup_that_got_in(browser, kinds, tmp_path):
    html = (kinds['one'][1] / 'report.html').read_text()
    (tmp_path / 'broken.html').write_text(html.replace('<h1>', f'<h1>{HOSTILE[2:]}', 1))
    browser.show(tmp_path / 'broken.html', width=1280)
    assert browser.evaluate('document.title') == 'night_drive'
    assert len(browser.complaints) >= 2 and all('Policy' in text for text in browser.complaints)
    assert browser.blocked == [url for url in browser.requests if url.startswith('http')]
