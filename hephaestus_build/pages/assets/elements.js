"use strict";
// Elements are made with text nodes alone: words of others never become markup.

/** Return an element with attributes and children, which are nodes or text. */
function element(name, attributes = {}, ...children) {
  return fill(document.createElement(name), attributes, children);
}

/** Return an element of an SVG. */
function shape(name, attributes = {}, ...children) {
  return fill(document.createElementNS("http://www.w3.org/2000/svg", name), attributes, children);
}

function fill(made, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== null && value !== undefined && value !== false) made.setAttribute(name, value);
  }
  made.append(...children.filter((child) => child !== null && child !== undefined && child !== ""));
  return made;
}

const byId = (id) => document.getElementById(id);
const MONTHS = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/** Return an ISO date for people. */
function dayText(iso) {
  const [year, month, day] = iso.split("-").map(Number);
  return `${day} ${MONTHS[month - 1]} ${year}`;
}

const dayNumber = (iso) => Date.parse(`${iso}T00:00:00Z`) / 86400000;

/** Return a number with so many digits; what rounds to zero has no sign. */
function signed(value, digits) {
  const text = Math.abs(value).toFixed(digits);
  return value < 0 && Number(text) ? `\u2212${text}` : text;
}

/** Return a place for people. */
function placeText(latitude, longitude) {
  const east = longitude - 360 * Math.floor((longitude + 180) / 360);
  const north = `${Math.abs(latitude).toFixed(3)}\u00b0 ${latitude < 0 ? "S" : "N"}`;
  return `${north}, ${Math.abs(east).toFixed(3)}\u00b0 ${east < 0 ? "W" : "E"}`;
}

function sizeText(bytes) {
  return bytes >= 1e6 ? `${(bytes / 1e6).toFixed(1)} MB` : `${(bytes / 1e3).toFixed(1)} kB`;
}

/** Return days with round steps between two days: years, months, or single days where there are few. */
function timeTicks(first, last, most) {
  if (last - first < 75) {
    const step = Math.max(1, Math.ceil((last - first) / Math.min(most, 6)));
    const days = [];
    for (let day = Math.ceil(first); day <= last; day += step) {
      const at = new Date(day * 86400000);
      days.push([day, `${at.getUTCDate()} ${MONTHS[at.getUTCMonth()]}`]);
    }
    return days;
  }
  const start = new Date(first * 86400000), ticks = [];
  const steps = [1, 2, 3, 6, 12, 24, 60, 120];
  const months = (last - first) / 30.44;
  const step = steps.find((one) => months / one <= most) || 120;
  for (let month = Math.floor(start.getUTCMonth() / step) * step; ; month += step) {
    const at = Date.UTC(start.getUTCFullYear(), month, 1);
    if (at / 86400000 > last) return ticks;
    if (at / 86400000 >= first) {
      const day = new Date(at), year = day.getUTCFullYear();
      ticks.push([at / 86400000, step >= 12 || day.getUTCMonth() === 0 ? `${year}` : MONTHS[day.getUTCMonth()]]);
    }
  }
}
