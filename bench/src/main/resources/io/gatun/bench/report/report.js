'use strict';

// ---- The data: columns of outcomes, strings by their number in a table

const data = JSON.parse(document.getElementById('data').textContent);
const columns = data.outcomes;
const text = index => data.strings[index];
const TIMES = ['runs', 'first', 'warm', 'low', 'high', 'cold', 'gflops', 'gbps', 'roofline', 'bound'];
const rows = columns.case.map((name, index) => {
  const row = {
    index,
    case: text(name),
    check: text(columns.check[index]),
    operator: text(columns.operator[index]),
    types: text(columns.types[index]),
    device: text(columns.device[index]),
    verdict: text(columns.verdict[index]),
    detail: text(columns.detail[index]),
    kernel: text(columns.kernel[index]),
    ratio: columns.ratio[index],
    error: columns.error[index],
    tolerance: columns.tolerance[index],
    time: null
  };
  const time = columns.time[index];
  if (time) {
    row.time = Object.fromEntries(TIMES.map((key, i) => [key, time[i]]));
  }
  row.search = [row.case, row.device, row.types, row.verdict, row.kernel, row.detail].join('\n').toLowerCase();
  return row;
});
const byName = new Map(rows.map(row => [row.device + '\n' + row.case, row]));

/** Devices as the report lists them. */
const ORDER = new Map(data.devices.map((device, index) => [device.name, index]));
const inOrder = (a, b) => (ORDER.get(a) ?? ORDER.size) - (ORDER.get(b) ?? ORDER.size);
const SEVERITY = ['fail', 'crashed', 'timed out', 'mistrusted', 'unsupported', 'not available', 'pass']; // worst first
const READING = ['pass', ...SEVERITY.slice(0, -1)];
const OPERATORS = ['gemm', 'attention', 'layernorm', 'rmsnorm', 'softmax', 'activation'];

// ---- Elements. Text from the data only ever becomes a text node or the value of a harmless attribute.

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes || {})) {
    if (value === null || value === undefined || value === false) {
      continue;
    }
    if (name.startsWith('on')) {
      element.addEventListener(name.slice(2), value);
    } else {
      element.setAttribute(name, value === true ? '' : value);
    }
  }
  element.append(...children.flat(Infinity).filter(child => child !== null && child !== undefined));
  return element;
}
const el = (tag, attributes, ...children) => fill(document.createElement(tag), attributes, children);
const svg = (tag, attributes, ...children) =>
  fill(document.createElementNS('http://www.w3.org/2000/svg', tag), attributes, children);
const section = id => document.getElementById(id);

/** Replaces what a section holds beside its heading and introduction. */
function show(id, ...children) {
  const target = section(id);
  target.hidden = children.length === 0;
  target.querySelectorAll(':scope > [data-made]').forEach(old => old.remove());
  for (const child of children) {
    child.setAttribute('data-made', '');
    target.append(child);
  }
}

const slug = verdict => verdict.replaceAll(' ', '-');
const verdictMark = (verdict, label) => el('span', {class: 'verdict v-' + slug(verdict)}, label ?? verdict);

/** Columns of numbers have a # behind their names. */
function table(head, body, attributes, caption) {
  return el(
    'div',
    {class: 'scroll card'},
    el(
      'table',
      attributes,
      caption ? el('caption', null, caption) : null,
      el(
        'thead',
        null,
        el(
          'tr',
          null,
          head.map(name =>
            el('th', {scope: 'col', class: name.endsWith('#') ? 'number' : null}, name.replace(/#$/, ''))
          )
        )
      ),
      el('tbody', null, body)
    )
  );
}

// ---- Numbers

function figure(value, digits = 3) {
  if (value === null || value === undefined) {
    return '';
  }
  if (value === 0) {
    return '0';
  }
  const size = Math.abs(value);
  return size >= 1e6 || size < 1e-3
    ? value.toExponential(Math.max(0, digits - 1))
    : size >= 1000
      ? Math.round(value).toLocaleString('en')
      : Number(value.toPrecision(digits)).toString();
}
const percent = value => (value === null || value === undefined ? '' : Math.round(100 * value) + ' %');
const milliseconds = value => (value === null ? '' : figure(value) + ' ms');
/** A count of something per second, with a prefix. */
function rate(value, unit) {
  const prefix = value >= 1e12 ? [1e12, 'T'] : value >= 1e9 ? [1e9, 'G'] : value >= 1e6 ? [1e6, 'M'] : [1, ''];
  return figure(value / prefix[0]) + ' ' + prefix[1] + unit;
}
const count = (number, noun) => number.toLocaleString('en') + ' ' + noun + (number === 1 ? '' : 's');

// ---- The state: what is filtered and how it is sorted. It lives in the address, so that a view can be linked.

const FILTERS = ['device', 'operator', 'types', 'verdict', 'check'];
const NOT_PASSED = 'all but pass';
const DEFAULTS = {
  q: '',
  device: '',
  operator: '',
  types: '',
  verdict: '',
  check: '',
  sort: 'verdict',
  page: '1',
  axis: 'flops'
};
const PAGE = 100;
let state = {...DEFAULTS};

function readHash() {
  const hash = location.hash.slice(1);
  if (hash !== '' && !hash.includes('=')) {
    return; // a place on the page
  }
  const given = new URLSearchParams(hash);
  state = {...DEFAULTS};
  for (const key of Object.keys(DEFAULTS)) {
    state[key] = given.get(key) ?? DEFAULTS[key];
  }
}

function hashOf(view) {
  const changed = Object.entries(view).filter(([key, value]) => value !== DEFAULTS[key]);
  return '#' + new URLSearchParams(changed);
}

function go(change) {
  state = {...state, page: '1', ...change};
  history.replaceState(null, '', hashOf(state));
  render();
}

function matches(row) {
  return (
    FILTERS.every(
      key =>
        state[key] === '' ||
        row[key] === state[key] ||
        (key === 'verdict' && state.verdict === NOT_PASSED && row.verdict !== 'pass')
    ) &&
    (/^".*"$/.test(state.q)
      ? row.case === state.q.slice(1, -1)
      : state.q
          .toLowerCase()
          .split(/\s+/)
          .every(word => row.search.includes(word)))
  );
}

// ---- Filters

const controls = {};

function buildFilters() {
  const form = section('filters');
  let typing = 0;
  controls.q = el('input', {
    type: 'search',
    name: 'q',
    placeholder: 'words, or a whole "case"',
    autocomplete: 'off',
    oninput: () => {
      clearTimeout(typing);
      typing = setTimeout(() => go({q: controls.q.value}), 120);
    }
  });
  form.append(el('label', {class: 'text'}, 'Text', controls.q));
  for (const key of FILTERS) {
    const values = [...new Set(rows.map(row => row[key]))].filter(value => value !== '');
    values.sort({verdict: (a, b) => SEVERITY.indexOf(a) - SEVERITY.indexOf(b), device: inOrder}[key]);
    if (key === 'verdict') {
      values.unshift(NOT_PASSED);
    }
    controls[key] = el(
      'select',
      {name: key, onchange: event => go({[key]: event.target.value})},
      el('option', {value: ''}, 'all'),
      values.map(value => el('option', {value}, value))
    );
    form.append(el('label', null, key[0].toUpperCase() + key.slice(1), controls[key]));
  }
  controls.count = el('p', {class: 'count', 'aria-live': 'polite'});
  form.append(el('button', {type: 'button', name: 'reset', onclick: () => go({...DEFAULTS})}, 'Reset'), controls.count);
  form.addEventListener('submit', event => event.preventDefault());
  form.hidden = false;
}

function showFilters(chosen) {
  for (const key of ['q', ...FILTERS]) {
    const typing = key === 'q' && document.activeElement === controls.q;
    if (!typing) {
      controls[key].value = state[key];
    }
  }
  controls.count.textContent =
    chosen.length === rows.length
      ? count(rows.length, 'outcome')
      : chosen.length.toLocaleString('en') + ' of ' + count(rows.length, 'outcome');
}

// ---- Backends, devices and what they claim: as they are, whatever is filtered

function buildBackends() {
  const made = [];
  if (data.devices.length > 0) {
    made.push(
      table(
        ['Device', 'Description', 'Threads#', 'Memory#', 'FP32#', 'BF16#', 'INT8#', 'Bandwidth#'],
        data.devices.map(device =>
          el(
            'tr',
            null,
            el('th', {scope: 'row'}, el('a', {href: hashOf({...DEFAULTS, device: device.name})}, device.name)),
            device.available
              ? el('td', {class: 'wrap'}, device.description)
              : el('td', {class: 'wrap'}, verdictMark('not available'), ' ', device.reason),
            el('td', {class: 'number'}, device.threads > 0 ? String(device.threads) : ''),
            el('td', {class: 'number'}, device.memoryBytes > 0 ? figure(device.memoryBytes / 2 ** 30) + ' GiB' : ''),
            ['f32', 'bf16', 's8'].map(limit =>
              el('td', {class: 'number'}, device.limits[limit] ? rate(device.limits[limit], 'OP/s') : '')
            ),
            el('td', {class: 'number'}, device.limits.memory ? rate(device.limits.memory, 'B/s') : '')
          )
        ),
        null,
        'Devices, with the ceilings that were measured'
      )
    );
  }
  if (data.backends.length > 0) {
    made.push(
      table(
        ['Backend', 'Version', 'ABI#', 'Library', 'SHA-256'],
        data.backends.map(backend =>
          el(
            'tr',
            null,
            el('th', {scope: 'row'}, backend.name),
            el('td', {class: 'wrap'}, backend.version),
            el('td', {class: 'number'}, backend.available ? String(backend.abiVersion) : ''),
            backend.available
              ? el('td', {class: 'wrap'}, backend.path)
              : el('td', {class: 'wrap'}, verdictMark('not available'), ' ', backend.reason),
            el('td', {class: 'wrap mono'}, backend.sha256)
          )
        ),
        null,
        'Backend libraries'
      )
    );
  }
  show('backends', ...made);
}

function buildSupport() {
  if (data.support.length === 0) {
    return;
  }
  const wrong = data.support.filter(entry => entry.contradiction !== '');
  const lines = entries =>
    table(
      ['Device', 'Operator', 'Type', 'Claimed', 'Ran#', 'Passed#', 'Declined#', 'Contradiction'],
      entries.map(entry =>
        el(
          'tr',
          null,
          el('th', {scope: 'row'}, entry.device),
          el('td', null, entry.operator),
          el('td', null, entry.dtype),
          el('td', null, entry.claimed === null ? 'no claim' : entry.claimed ? 'yes' : 'no'),
          el('td', {class: 'number'}, String(entry.ran)),
          el('td', {class: 'number'}, String(entry.passed)),
          el('td', {class: 'number'}, String(entry.declined)),
          el('td', {class: 'wrap'}, entry.contradiction === '' ? '' : verdictMark('fail', entry.contradiction))
        )
      )
    );
  const made = [wrong.length === 0 ? el('p', null, 'No device did anything else than it claims.') : lines(wrong)];
  made.push(
    el('details', {class: 'card'}, el('summary', null, 'All ' + data.support.length + ' claims'), lines(data.support))
  );
  show('support', ...made);
}

// ---- Coverage: operators and types by device

const groupBy = (list, key) =>
  list.reduce((groups, item) => {
    const name = key(item);
    groups.has(name) ? groups.get(name).push(item) : groups.set(name, [item]);
    return groups;
  }, new Map());
const kind = row => row.operator + '\n' + row.types;
/** Whether it was run often enough for its time to mean something. */
const timed = row => row.check === 'time' && row.time !== null;
/** Whether results were compared with what was expected. */
const compared = row =>
  (row.verdict === 'pass' || row.verdict === 'fail') && (row.check === 'value' || row.ratio !== 0);

function verdictBar(outcomes) {
  let x = 0;
  const bar = svg('svg', {viewBox: '0 0 100 5', preserveAspectRatio: 'none', 'aria-hidden': 'true'});
  for (const verdict of READING) {
    const width = (100 * outcomes.filter(row => row.verdict === verdict).length) / outcomes.length;
    if (width > 0) {
      bar.append(svg('rect', {x, y: 0, width, height: 5, class: 'v-' + slug(verdict)}));
      x += width;
    }
  }
  return bar;
}

function renderCoverage(chosen) {
  const cases = chosen.filter(row => row.operator !== '');
  const devices = [...new Set(cases.map(row => row.device))].sort(inOrder);
  const groups = [...groupBy(cases, kind)].sort(([a], [b]) => (a < b ? -1 : 1));
  if (groups.length === 0) {
    show('coverage');
    return;
  }
  show(
    'coverage',
    table(
      ['Operator', 'Types', ...devices],
      groups.map(([, group]) => {
        const {operator, types} = group[0];
        return el(
          'tr',
          null,
          el('th', {scope: 'row'}, operator),
          el('td', null, el('code', null, types)),
          devices.map(device => {
            const here = group.filter(row => row.device === device);
            if (here.length === 0) {
              return el('td', {class: 'soft'}, '\u00b7');
            }
            return el(
              'td',
              null,
              el(
                'a',
                {href: hashOf({...DEFAULTS, device, operator, types})},
                verdictBar(here),
                READING.map(verdict => {
                  const found = here.filter(row => row.verdict === verdict).length;
                  return found > 0 ? verdictMark(verdict, found.toLocaleString('en') + ' ' + verdict) : null;
                })
              )
            );
          })
        );
      }),
      {class: 'coverage'}
    )
  );
}

// ---- Charts

const tip = section('tip');

function showTip(lines, x, y) {
  tip.textContent = lines;
  tip.hidden = false;
  const box = tip.getBoundingClientRect();
  tip.style.left = Math.max(4, Math.min(x + 14, innerWidth - box.width - 8)) + 'px';
  tip.style.top = Math.max(4, y + box.height + 20 > innerHeight ? y - box.height - 12 : y + 16) + 'px';
}
const hideTip = () => {
  tip.hidden = true;
};

/** Tooltips for the marks of a chart: under the pointer, and one after the other with the arrow keys. */
function explain(chart, marks) {
  let current = -1;
  const select = index => {
    marks[current]?.element.classList.remove('on');
    current = index;
    marks[current]?.element.classList.add('on');
  };
  marks.forEach((mark, index) => {
    mark.element.addEventListener('pointermove', event => {
      select(index);
      showTip(mark.text, event.clientX, event.clientY);
    });
    mark.element.addEventListener('pointerleave', () => {
      select(-1);
      hideTip();
    });
    if (mark.go) {
      mark.element.addEventListener('click', mark.go);
    }
  });
  chart.setAttribute('tabindex', marks.length > 0 ? '0' : '-1');
  chart.addEventListener('keydown', event => {
    const step = {ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1}[event.key];
    if (step && marks.length > 0) {
      event.preventDefault();
      select(current < 0 ? (step > 0 ? 0 : marks.length - 1) : (current + step + marks.length) % marks.length);
      const box = marks[current].element.getBoundingClientRect();
      showTip(marks[current].text, box.right, box.bottom);
    } else if (event.key === 'Enter' && marks[current]?.go) {
      marks[current].go();
    } else if (event.key === 'Escape') {
      hideTip();
    }
  });
  chart.addEventListener('blur', () => {
    select(-1);
    hideTip();
  });
}

function frame(width, height, label) {
  return svg('svg', {viewBox: `0 0 ${width} ${height}`, role: 'img', 'aria-label': label});
}

const power = exponent =>
  exponent >= -3 && exponent <= 4 ? String(Number((10 ** exponent).toPrecision(1))) : '1e' + exponent;
/** Where a logarithmic axis begins and ends: a little beyond the values, as exponents of 10. */
function reach(values) {
  const logs = values.map(Math.log10);
  return [logs.reduce((a, b) => Math.min(a, b)) - 0.15, logs.reduce((a, b) => Math.max(a, b)) + 0.15];
}
/** Powers of 10, and what is between them where there are few. */
function ticks(low, high) {
  const steps = high - low > 2.2 ? [1] : [1, 2, 5];
  const found = [];
  for (let exponent = Math.floor(low); exponent <= high; exponent++) {
    found.push(...steps.map(step => Number((step * 10 ** exponent).toPrecision(1))));
  }
  return found.filter(tick => Math.log10(tick) >= low && Math.log10(tick) <= high);
}
const line = (x1, y1, x2, y2, name) => svg('line', {x1, y1, x2, y2, class: name});
const label = (x, y, anchor, words) => svg('text', {x, y, 'text-anchor': anchor}, words);

// (a) How the errors are distributed: one histogram for each operator and types, all on one scale

const BINS = 4; // per decade
const ZERO = 4; // slots before them: no error, and a gap

function renderErrors(chosen) {
  const found = chosen.filter(compared);
  const positive = found.map(row => row.ratio).filter(ratio => ratio !== null && ratio > 0);
  if (found.length === 0) {
    show('errors');
    return;
  }
  const decade = (value, low, high) => Math.min(high, Math.max(low, value));
  const low = decade(Math.floor(Math.log10(positive.reduce((a, b) => Math.min(a, b), 1))), -4, -2);
  const high = decade(Math.ceil(Math.log10(positive.reduce((a, b) => Math.max(a, b), 1))), 1, 4);
  const groups = [...groupBy(found, kind)].sort(([a], [b]) => (a < b ? -1 : 1));
  show(
    'errors',
    el(
      'div',
      {class: 'charts'},
      groups.map(([, group]) => histogram(group, low, high))
    )
  );
}

function histogram(group, low, high) {
  const width = 300,
    height = 130,
    left = 8,
    right = 8,
    top = 14,
    bottom = 22;
  const bins = (high - low) * BINS;
  const slots = ZERO + bins + 1; // no error, a gap, the bins, and what is not finite or beyond
  const slot = (width - left - right) / slots;
  const counts = new Array(slots).fill(0);
  for (const {ratio} of group) {
    const bin =
      ratio === null
        ? slots - 1
        : ratio === 0
          ? 0
          : ZERO + Math.max(0, Math.min(bins, Math.floor((Math.log10(ratio) - low) * BINS - 1e-9)));
    counts[bin]++;
  }
  const most = Math.max(...counts);
  const x = exponent => left + slot * (ZERO + (exponent - low) * BINS);
  const base = height - bottom;
  const {operator, types} = group[0];
  const worst = group.some(row => row.ratio === null)
    ? 'not finite'
    : figure(
        group.reduce((a, row) => Math.max(a, row.ratio), 0),
        2
      );
  const chart = frame(
    width,
    height,
    `${operator} ${types}: ${count(group.length, 'case')}, worst error ${worst} of the tolerance`
  );
  chart.append(line(left, base, width - right, base, 'axis'));
  for (let exponent = low; exponent <= high; exponent++) {
    chart.append(
      line(x(exponent), base, x(exponent), base + 4, 'axis'),
      label(x(exponent), base + 16, 'middle', power(exponent))
    );
  }
  chart.append(label(left + slot / 2, base + 16, 'middle', '0'));
  const marks = [];
  counts.forEach((number, bin) => {
    if (number === 0) {
      return;
    }
    const tall = Math.max(2, ((base - top) * number) / most);
    const from = low + (bin - ZERO) / BINS;
    const beyond = bin >= ZERO && from >= 0;
    const element = svg('rect', {
      class: beyond ? 'bar beyond' : 'bar',
      x: left + slot * bin + 0.5,
      width: Math.max(1, slot - 1),
      y: base - tall,
      height: tall,
      'data-count': number
    });
    chart.append(element);
    const range =
      bin === 0
        ? 'no error'
        : bin === slots - 1
          ? 'not finite, or more than ' + power(high)
          : (bin === ZERO ? 'up to ' : figure(10 ** from, 2) + ' to ') +
            figure(10 ** (from + 1 / BINS), 2) +
            ' of the tolerance';
    marks.push({element, text: range + '\n' + count(number, 'case')});
  });
  chart.append(
    line(x(0), top - 6, x(0), base, 'tolerance'),
    label(left, top - 4, 'start', 'most: ' + most.toLocaleString('en'))
  );
  explain(chart, marks);
  return el(
    'figure',
    {class: 'card histogram'},
    el(
      'figcaption',
      null,
      el('b', null, operator + ' '),
      el('code', null, types),
      el('br'),
      count(group.length, 'case') + ', worst ' + worst
    ),
    chart
  );
}

// (b) Rooflines: what each timed case reached of what the device can do

const SHAPES = [
  'M-4,0a4,4 0 1,0 8,0a4,4 0 1,0 -8,0',
  'M-3.6,-3.6h7.2v7.2h-7.2z',
  'M0,-4.8L4.6,3.4H-4.6z',
  'M0,-5L5,0L0,5L-5,0z',
  'M0,4.8L4.6,-3.4H-4.6z',
  'M-1.5,-4.5h3v3h3v3h-3v3h-3v-3h-3v-3h3z',
  'M-4,-2h8v4h-8z'
];
const color = operator => 'c-' + (OPERATORS.includes(operator) ? operator : 'other');
const shape = operator => SHAPES[OPERATORS.includes(operator) ? OPERATORS.indexOf(operator) : 6];
const LIMITS = {f32: 'FP32', bf16: 'BF16', s8: 'INT8'};

const toRow = row => () => {
  go({...DEFAULTS, axis: state.axis, device: row.device, q: '"' + row.case + '"'});
  section('outcomes').scrollIntoView();
};

function renderRooflines(chosen) {
  const measured = chosen.filter(timed);
  const placed = measured.filter(row => row.time.gflops > 0 && row.time.gbps > 0);
  const unplaced = measured.length - placed.length;
  const devices = [...groupBy(placed, row => row.device)].sort(([a], [b]) => inOrder(a, b));
  if (devices.length === 0) {
    show('roofline');
    return;
  }
  const operators = [...new Set(placed.map(row => row.operator))].sort();
  const legend = el(
    'ul',
    {class: 'legend'},
    operators.map(operator =>
      el(
        'li',
        {class: color(operator)},
        svg('svg', {viewBox: '-7 -7 14 14', 'aria-hidden': 'true'}, svg('path', {d: shape(operator), class: 'point'})),
        operator
      )
    )
  );
  const choice = (value, words) =>
    el(
      'label',
      null,
      el('input', {
        type: 'radio',
        name: 'axis',
        value,
        checked: state.axis === value,
        onchange: () => go({axis: value, page: state.page})
      }),
      words
    );
  const made = [
    el(
      'fieldset',
      {class: 'switch'},
      el('legend', null, 'Vertical axis'),
      choice('flops', 'GFLOP/s'),
      choice('bytes', 'GB/s')
    ),
    legend,
    el(
      'div',
      {class: 'charts large'},
      devices.map(([device, group]) => roofline(device, group))
    )
  ];
  if (unplaced > 0) {
    made.push(el('p', null, count(unplaced, 'timed case') + ' without a point: the run is smaller than its plan.'));
  }
  const focused = document.activeElement?.name === 'axis';
  show('roofline', ...made);
  if (focused) {
    section('roofline').querySelector('input:checked').focus();
  }
}

/** Whether the time to be measured by the ceilings is the cold one. */
const cold = time => time.bound === 'memory' && time.cold > 0;

function roofline(device, group) {
  const width = 600,
    height = 380,
    left = 52,
    right = 100,
    top = 16,
    bottom = 42;
  const limits = data.devices.find(entry => entry.name === device)?.limits ?? {};
  const memory = limits.memory ? limits.memory / 1e9 : null;
  const roofs = Object.keys(LIMITS)
    .filter(name => limits[name])
    .map(name => [name, limits[name] / 1e9]);
  const bytes = state.axis === 'bytes';
  const points = group.map(row => ({
    row,
    x: row.time.gflops / row.time.gbps,
    y: (bytes ? row.time.gbps : row.time.gflops) * (cold(row.time) ? row.time.warm / row.time.cold : 1)
  }));

  // The axes hold every point, and the places where the ceilings meet.
  const xs = points.map(point => point.x).concat(memory ? roofs.map(([, roof]) => roof / memory) : []);
  const [x0, x1] = reach(xs);
  const ys = points.map(point => point.y).concat(bytes ? (memory ?? []) : roofs.map(([, roof]) => roof));
  const [y0, y1] = reach(ys);
  const x = value => left + ((width - left - right) * (Math.log10(value) - x0)) / (x1 - x0);
  const y = value => height - bottom - ((height - top - bottom) * (Math.log10(value) - y0)) / (y1 - y0);

  const chart = frame(width, height, `Roofline of ${device}: ${count(points.length, 'timed case')}`);
  for (const tick of ticks(x0, x1)) {
    chart.append(
      line(x(tick), top, x(tick), height - bottom, 'grid'),
      label(x(tick), height - bottom + 16, 'middle', figure(tick))
    );
  }
  for (const tick of ticks(y0, y1)) {
    chart.append(
      line(left, y(tick), width - right, y(tick), 'grid'),
      label(left - 8, y(tick) + 4, 'end', figure(tick))
    );
  }
  chart.append(
    line(left, height - bottom, width - right, height - bottom, 'axis'),
    line(left, top, left, height - bottom, 'axis')
  );
  chart.append(
    label((left + width - right) / 2, height - 6, 'middle', 'FLOP per byte'),
    svg(
      'text',
      {transform: `translate(14 ${(height - bottom + top) / 2}) rotate(-90)`, 'text-anchor': 'middle'},
      bytes ? 'GB/s' : 'GFLOP/s'
    )
  );
  chart.append(
    ceilings(memory, roofs, bytes, {x, y, x0: 10 ** x0, x1: 10 ** x1, y0: 10 ** y0, y1: 10 ** y1}, width - right + 6)
  );

  const marks = points.map(({row, x: across, y: up}) => {
    const element = svg('path', {
      d: shape(row.operator),
      class: 'point ' + color(row.operator),
      transform: `translate(${x(across).toFixed(1)} ${y(up).toFixed(1)})`,
      'data-index': row.index
    });
    chart.append(element);
    return {
      element,
      go: toRow(row),
      text: [
        row.case,
        'warm ' + milliseconds(row.time.warm) + ', cold ' + (milliseconds(row.time.cold) || 'not measured'),
        figure(bytes ? up * across : up) +
          ' GFLOP/s, ' +
          figure(bytes ? up : up / across) +
          ' GB/s' +
          (cold(row.time) ? ', cold' : ''),
        figure(across) + ' FLOP per byte',
        row.time.roofline === null ? '' : percent(row.time.roofline) + ' of the ceiling, bound by ' + row.time.bound,
        row.kernel
      ]
        .filter(words => words)
        .join('\n')
    };
  });
  explain(chart, marks);
  return el(
    'figure',
    {class: 'card roofline'},
    el(
      'figcaption',
      null,
      el('b', null, device),
      ' ',
      count(points.length, 'timed case'),
      memory || roofs.length > 0 ? '' : ', no measured ceilings'
    ),
    chart
  );
}

/** Each roof from where memory allows less, with its name at the right; names keep their distance. */
function ceilings(memory, roofs, bytes, axes, labels) {
  const group = svg('g');
  const names = [];
  const {x, y, x0, x1} = axes;
  const value = (roof, at) => (bytes ? roof / at : roof);
  const highest = Math.max(...roofs.map(([, roof]) => roof), 0);
  if (memory) {
    const from = Math.max(x0, bytes ? x0 : axes.y0 / memory);
    const ridge = Math.min(x1, highest > 0 ? highest / memory : x1, bytes ? x1 : axes.y1 / memory);
    const at = intensity => y(bytes ? memory : memory * intensity);
    group.append(line(x(from), at(from), x(ridge), at(ridge), 'limit memory'));
    const words = 'memory ' + rate(memory * 1e9, 'B/s');
    const angle = (Math.atan2(at(ridge) - at(from), x(ridge) - x(from)) * 180) / Math.PI;
    const middle = 10 ** ((Math.log10(from) + Math.log10(ridge)) / 2);
    group.append(
      svg(
        'text',
        {transform: `translate(${x(middle)} ${at(middle) - 6}) rotate(${angle})`, 'text-anchor': 'middle'},
        words
      )
    );
  }
  for (const [name, roof] of roofs) {
    const from = memory ? Math.min(x1, roof / memory) : x0;
    const to = bytes ? Math.min(x1, roof / axes.y0) : x1;
    group.append(line(x(from), y(value(roof, from)), x(to), y(value(roof, to)), 'limit ' + name));
    names.push({at: y(value(roof, to)), words: LIMITS[name] + ' ' + rate(roof * 1e9, 'OP/s')});
  }
  let above = -Infinity;
  for (const {at, words} of names.sort((a, b) => a.at - b.at)) {
    above = Math.max(at + 4, above + 13);
    group.append(label(labels, above, 'start', words));
  }
  return group;
}

// (d) The baseline: then and now

function renderBaseline(chosen) {
  if (data.comparison === null) {
    return;
  }
  const visible = new Set(chosen);
  const entries = data.comparison.entries.filter(entry => visible.has(byName.get(entry.device + '\n' + entry.name)));
  const number = verdict => entries.filter(entry => entry.verdict === verdict).length;
  const intro = el(
    'p',
    null,
    'With the run of ' +
      data.comparison.started +
      ': ' +
      count(entries.length, 'case') +
      ', ' +
      number('slower') +
      ' slower, ' +
      number('faster') +
      ' faster, ' +
      number('noise') +
      ' within the noise, ' +
      number('same') +
      ' the same. A case counts when it differs by more than ' +
      percent(data.comparison.threshold) +
      '.'
  );
  const drawn = entries.filter(entry => entry.beforeMs > 0 && entry.afterMs > 0);
  const made = [intro];
  if (drawn.length > 0) {
    made.push(el('div', {class: 'charts large'}, changes(drawn)));
    const changed = entries
      .filter(entry => entry.verdict === 'slower' || entry.verdict === 'faster')
      .sort((a, b) => b.afterMs / b.beforeMs - a.afterMs / a.beforeMs);
    if (changed.length > 0) {
      const slowest = changed.slice(0, 20);
      made.push(
        table(
          ['Verdict', 'Device', 'Case', 'Before#', 'Now#', 'Change#'],
          slowest.map(entry =>
            el(
              'tr',
              null,
              el(
                'td',
                null,
                entry.verdict === 'slower' ? verdictMark('fail', 'slower') : verdictMark('pass', 'faster')
              ),
              el('td', null, entry.device),
              el('td', {class: 'wrap'}, el('code', null, entry.name)),
              el('td', {class: 'number'}, milliseconds(entry.beforeMs)),
              el('td', {class: 'number'}, milliseconds(entry.afterMs)),
              el('td', {class: 'number'}, figure(entry.afterMs / entry.beforeMs) + ' \u00d7')
            )
          ),
          null,
          slowest.length < changed.length ? `The ${slowest.length} slowest of ${changed.length} that changed` : null
        )
      );
    }
  }
  show('baseline', ...made);
}

function changes(entries) {
  const width = 600,
    height = 300,
    left = 66,
    right = 16,
    top = 14,
    bottom = 42;
  const ratio = entry => entry.afterMs / entry.beforeMs;
  const [low, high] = reach(entries.map(entry => entry.beforeMs));
  const most = entries.reduce(
    (a, entry) => Math.max(a, 1.1 * Math.abs(Math.log2(ratio(entry)))),
    Math.max(0.3, 1.5 * Math.log2(1 + data.comparison.threshold))
  );
  const x = value => left + ((width - left - right) * (Math.log10(value) - low)) / (high - low);
  const y = value => (top + height - bottom) / 2 - (((height - top - bottom) / 2) * Math.log2(value)) / most;
  const chart = frame(
    width,
    height,
    'Times of this run as a part of those of the baseline: ' + count(entries.length, 'case')
  );
  const band = 1 + data.comparison.threshold;
  chart.append(
    svg('rect', {class: 'band', x: left, width: width - left - right, y: y(band), height: y(1 / band) - y(band)})
  );
  for (const tick of ticks(low, high)) {
    chart.append(
      line(x(tick), top, x(tick), height - bottom, 'grid'),
      label(x(tick), height - bottom + 16, 'middle', figure(tick))
    );
  }
  const step = [0.1, 0.25, 0.5, 1, 2, 4].find(size => most / size <= 4) ?? 8;
  for (let tick = -Math.floor(most / step); tick * step <= most; tick++) {
    const value = 2 ** (tick * step);
    chart.append(
      line(left, y(value), width - right, y(value), tick === 0 ? 'axis' : 'grid'),
      label(left - 8, y(value) + 4, 'end', figure(value, 2) + '\u00d7')
    );
  }
  chart.append(
    label((left + width - right) / 2, height - 6, 'middle', 'milliseconds before'),
    svg(
      'text',
      {transform: `translate(14 ${(height - bottom + top) / 2}) rotate(-90)`, 'text-anchor': 'middle'},
      'time now / before'
    )
  );
  const marks = entries.map(entry => {
    const element = svg('path', {
      class: 'point c-' + entry.verdict,
      transform: `translate(${x(entry.beforeMs).toFixed(1)} ${y(ratio(entry)).toFixed(1)})`,
      d: entry.verdict === 'slower' ? SHAPES[2] : entry.verdict === 'faster' ? SHAPES[4] : SHAPES[0]
    });
    chart.append(element);
    return {
      element,
      go: toRow(byName.get(entry.device + '\n' + entry.name)),
      text: [
        entry.name,
        entry.device,
        entry.verdict + ': ' + milliseconds(entry.afterMs) + ', was ' + milliseconds(entry.beforeMs)
      ].join('\n')
    };
  });
  explain(chart, marks);
  return el(
    'figure',
    {class: 'card changes'},
    el(
      'figcaption',
      null,
      el('b', null, 'Time now, as a part of the time before'),
      el('br'),
      el('span', {class: 'mark c-slower'}, '\u25b2'),
      ' slower, ',
      el('span', {class: 'mark c-faster'}, '\u25bc'),
      ' faster, ',
      el('span', {class: 'mark c-same'}, '\u25cf'),
      ' same or noise; the band is the threshold'
    ),
    chart
  );
}

// ---- The table of outcomes

const COLUMNS = [
  {key: 'verdict', name: 'Verdict', of: row => SEVERITY.indexOf(row.verdict), cell: row => verdictMark(row.verdict)},
  {key: 'device', name: 'Device', of: row => row.device},
  {key: 'operator', name: 'Operator', of: row => row.operator},
  {key: 'types', name: 'Types', of: row => row.types, cell: row => el('code', null, row.types)},
  {key: 'check', name: 'Check', of: row => row.check},
  {key: 'case', name: 'Case', of: row => row.case, cell: row => el('code', null, row.case || row.detail), wide: true},
  {
    key: 'ratio',
    name: 'Error',
    of: row => (compared(row) ? (row.ratio ?? Infinity) : null),
    cell: row => (compared(row) ? (row.ratio === null ? 'not finite' : figure(row.ratio, 2)) : ''),
    number: true
  },
  {key: 'ms', name: 'ms', of: row => row.time?.warm, cell: row => figure(row.time?.warm), number: true},
  {
    key: 'gflops',
    name: 'GFLOP/s',
    of: row => (timed(row) && row.time.gflops) || null,
    cell: row => figure((timed(row) && row.time.gflops) || null),
    number: true
  },
  {
    key: 'gbps',
    name: 'GB/s',
    of: row => (timed(row) && row.time.gbps) || null,
    cell: row => figure((timed(row) && row.time.gbps) || null),
    number: true
  },
  {key: 'roofline', name: 'Roof', of: row => row.time?.roofline, cell: row => percent(row.time?.roofline), number: true}
];

/** By a column, a minus sign for descending; what has no value comes last either way. */
function sorted(chosen) {
  const column = COLUMNS.find(({key}) => key === state.sort.replace('-', '')) ?? COLUMNS[0];
  const sign = state.sort.startsWith('-') ? -1 : 1;
  return chosen
    .map(row => [column.of(row) ?? null, row])
    .sort(([a, one], [b, other]) =>
      a === b ? one.index - other.index : a === null ? 1 : b === null ? -1 : a < b ? -sign : sign
    )
    .map(([, row]) => row);
}

function renderOutcomes(chosen) {
  if (chosen.length === 0) {
    show(
      'outcomes',
      el('p', {class: 'empty card'}, rows.length === 0 ? 'There are no outcomes.' : 'No outcome matches the filters.')
    );
    return;
  }
  const ordered = sorted(chosen);
  const pages = Math.ceil(ordered.length / PAGE);
  const page = Math.max(1, Math.min(pages, Number.parseInt(state.page, 10) || 1));
  const first = (page - 1) * PAGE;
  const shown = ordered.slice(first, first + PAGE);
  const used = COLUMNS.filter(
    column =>
      !['ms', 'gflops', 'gbps', 'roofline'].includes(column.key) ||
      chosen.some(column.key === 'ms' ? row => row.time : timed)
  );

  const head = el(
    'tr',
    null,
    el('td'),
    used.map(column => {
      const active = state.sort.replace('-', '') === column.key;
      const down = state.sort.startsWith('-');
      const next = active ? (down ? column.key : '-' + column.key) : column.number ? '-' + column.key : column.key;
      return el(
        'th',
        {
          scope: 'col',
          class: column.number ? 'number' : null,
          'aria-sort': active ? (down ? 'descending' : 'ascending') : null
        },
        el(
          'button',
          {
            type: 'button',
            'data-sort': column.key,
            onclick: () => {
              go({sort: next});
              section('outcomes').querySelector(`[data-sort=${column.key}]`).focus();
            }
          },
          column.name + (active ? (down ? ' \u25be' : ' \u25b4') : '')
        )
      );
    })
  );
  const body = el(
    'tbody',
    null,
    shown.map(row => outcome(row, used))
  );
  const turn = (to, words, name) =>
    el(
      'button',
      {
        type: 'button',
        name,
        disabled: to < 1 || to > pages || to === page,
        onclick: () => {
          go({page: String(to)});
          section('outcomes').scrollIntoView();
          section('outcomes').focus({preventScroll: true});
        }
      },
      words
    );
  const pager = el(
    'nav',
    {class: 'pages', 'aria-label': 'Pages of outcomes'},
    turn(1, 'First', 'first'),
    turn(page - 1, 'Previous', 'previous'),
    el('span', null, `${first + 1} to ${first + shown.length} of ${ordered.length.toLocaleString('en')}`),
    turn(page + 1, 'Next', 'next'),
    turn(pages, 'Last', 'last')
  );
  show(
    'outcomes',
    el(
      'div',
      {class: 'card'},
      el('div', {class: 'scroll'}, el('table', {class: 'rows'}, el('thead', null, head), body)),
      pages > 1 ? pager : null
    )
  );
  if (shown.length === 1) {
    body.querySelector('.toggle').click(); // someone was sent here, for this one
  }
}

function outcome(row, used) {
  const detail = 'detail-' + row.index;
  const toggle = el(
    'button',
    {
      type: 'button',
      class: 'toggle',
      'aria-expanded': 'false',
      'aria-controls': detail,
      'aria-label': 'Details of ' + (row.case || row.device)
    },
    '\u25b8'
  );
  const shown = el(
    'tr',
    {class: 'outcome v-' + slug(row.verdict)},
    el('td', null, toggle),
    used.map(column =>
      el(
        'td',
        {class: column.number ? 'number' : column.wide ? 'case' : null},
        column.cell ? column.cell(row) : column.of(row)
      )
    )
  );
  toggle.addEventListener('click', () => {
    const open = toggle.getAttribute('aria-expanded') === 'true';
    toggle.setAttribute('aria-expanded', String(!open));
    toggle.textContent = open ? '\u25b8' : '\u25be';
    shown.classList.toggle('open', !open);
    if (open) {
      shown.nextElementSibling.remove();
    } else {
      shown.after(el('tr', {class: 'detail', id: detail}, el('td', {colspan: used.length + 1}, explanation(row))));
    }
  });
  return shown;
}

function explanation(row) {
  const facts = [];
  const fact = (name, value) => (value ? facts.push(el('div', null, el('dt', null, name), el('dd', null, value))) : 0);
  fact('Kernel', row.kernel);
  fact('Error', row.error === null ? 'not finite' : row.error > 0 ? figure(row.error) : '');
  fact('Tolerance', row.tolerance === null ? 'not finite' : row.tolerance > 0 ? figure(row.tolerance) : '');
  fact('Ratio', row.ratio === null ? 'not finite' : row.ratio > 0 ? figure(row.ratio) : '');
  if (row.time) {
    fact(
      'Warm run',
      milliseconds(row.time.warm) +
        ' (' +
        figure(row.time.low) +
        ' to ' +
        figure(row.time.high) +
        ', ' +
        count(row.time.runs, 'run') +
        ')'
    );
    fact('First run', milliseconds(row.time.first));
    fact('Cold run', milliseconds(row.time.cold));
    fact(
      'Reached',
      row.time.roofline === null ? '' : percent(row.time.roofline) + ' of the ceiling, bound by ' + row.time.bound
    );
  }
  const made = [];
  if (row.detail) {
    made.push(el('pre', {class: 'why'}, row.detail));
  }
  if (facts.length > 0) {
    made.push(el('dl', {class: 'facts'}, facts));
  }
  if (row.case) {
    const command = data.repeat[row.device] + '"' + row.case.replace(/[\\"$`]/g, '\\$&') + '"';
    const code = el('code', null, command);
    const button = el('button', {type: 'button', name: 'copy', onclick: () => copy(command, code, button)}, 'Copy');
    made.push(el('div', {class: 'repeat'}, code, button));
  }
  return made;
}

async function copy(command, code, button) {
  try {
    await navigator.clipboard.writeText(command);
  } catch {
    // a page from a file may not be allowed to
    getSelection().selectAllChildren(code);
    document.execCommand('copy');
  }
  button.textContent = 'Copied';
  setTimeout(() => {
    button.textContent = 'Copy';
  }, 1500);
}

// ---- All of it

function render() {
  hideTip();
  const chosen = rows.filter(matches);
  showFilters(chosen);
  renderCoverage(chosen);
  renderErrors(chosen);
  renderRooflines(chosen);
  renderBaseline(chosen);
  renderOutcomes(chosen);
}

buildFilters();
buildBackends();
buildSupport();
readHash();
addEventListener('hashchange', () => {
  readHash();
  render();
});
render();
