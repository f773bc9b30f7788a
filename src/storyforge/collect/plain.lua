-- What of a document is no story: footnotes, pictures, what is struck out, a site's or an archive's frame around
-- the work. Headings and italics are written as Markdown has them, so that all kinds of file look alike afterwards.
local archive = false
local AROUND = {nav = true, footer = true, aside = true, form = true}  -- documents.py makes a header a nav

local function tag(block)
  return block.t == "RawBlock" and block.format == "html" and block.text:match("^<(/?%a+)") or ""
end

-- Where the element that block n opens is closed in the same list; nil where it is not, so that nothing is lost.
local function closing(blocks, n)
  local name, depth = tag(blocks[n]), 0
  for m = n, #blocks do
    local met = tag(blocks[m])
    depth = depth + (met == name and 1 or met == "/" .. name and -1 or 0)
    if depth == 0 then return m end
  end
end

-- The only article of a page; else the page, whose <main> pandoc has taken already.
local function article(document)
  local found, count = nil, 0
  document:walk({Blocks = function(blocks)
    for n, block in ipairs(blocks) do
      if tag(block) == "article" then
        local last = closing(blocks, n)
        count = count + 1
        found = last and {table.unpack(blocks, n + 1, last - 1)}
      end
    end
  end})
  return count == 1 and found or nil
end

-- Without navigation, footers, asides and forms. An article's header has its title, a page's the site's.
local function bare(document)
  local inside = article(document)
  if inside then document.blocks = pandoc.Blocks(inside) end
  document = document:walk({Blocks = function(blocks)
    local kept, n = pandoc.Blocks({}), 1
    while n <= #blocks do
      local last = AROUND[tag(blocks[n])] and closing(blocks, n)
      for m = n, last or n do
        local block = blocks[m]
        if not last or (inside and block.t == "Header" and block.level == 1) then kept:insert(block) end
      end
      n = (last or n) + 1
    end
    return kept
  end})
  local titles = pandoc.List()
  document:walk({Header = function(header)
    if header.level == 1 then titles:insert(pandoc.utils.stringify(header)) end
  end})
  local first = (titles[1] or ""):lower():match("^%a*")
  local chapter = first == "chapter" or first == "part" or first == "prologue" or first == "epilogue"
  if #titles == 1 and titles[1]:find("%S") and not chapter then document.meta.title = titles[1] end
  return document
end

local function heading(header)
  return pandoc.RawBlock("plain", string.rep("#", header.level) .. " " .. pandoc.utils.stringify(header))
end

local function starred(emphasis)
  local inside = emphasis.content
  local text = pandoc.utils.stringify(inside)
  if not text:find("%S") then return inside end
  local before, after = pandoc.List(), pandoc.List()
  while inside[1] and (inside[1].t == "Space" or inside[1].t == "SoftBreak") do before:insert(inside:remove(1)) end
  while inside[#inside] and (inside[#inside].t == "Space" or inside[#inside].t == "SoftBreak") do
    after:insert(1, inside:remove())
  end
  inside:insert(1, pandoc.Str("*"))
  inside:insert(pandoc.Str("*"))
  return before .. inside .. after
end

local function nothing() return {} end

local function content(element) return element.content end

-- Two line breaks end a paragraph.
local function paragraphs(block)
  local found, inside = pandoc.List(), pandoc.List()
  local breaks = 0
  for _, inline in ipairs(block.content) do
    if inline.t == "LineBreak" then
      breaks = breaks + 1
    elseif breaks == 0 or (inline.t ~= "Space" and inline.t ~= "SoftBreak") then
      if breaks == 1 then inside:insert(pandoc.LineBreak()) end
      if breaks > 1 then
        found:insert(pandoc.Para(inside))
        inside = pandoc.List()
      end
      inside:insert(inline)
      breaks = 0
    end
  end
  if #found == 0 then return nil end
  found:insert(pandoc.Para(inside))
  return found
end

local function cells(tabular)
  local found = pandoc.Blocks({})
  local function add(rows)
    for _, row in ipairs(rows) do
      for _, cell in ipairs(row.cells) do found:extend(cell.contents) end
    end
  end
  add(tabular.head.rows)
  for _, body in ipairs(tabular.bodies) do
    add(body.head)
    add(body.body)
  end
  add(tabular.foot.rows)
  return found:map(function(block) return block.t == "Plain" and pandoc.Para(block.content) or block end)
end

local function division(div)
  local id = div.identifier:match("[^_]*$")
  local around = id == "preface" or id == "afterword" or div.classes:includes("meta")
  if not (archive and around) then return div.content end
  local kept = pandoc.List()
  div:walk({Header = function(header) if header.level == 1 then kept:insert(header) end end})
  return kept
end

return {
  {Pandoc = function(document)
    archive = pandoc.utils.stringify(document):find("Archive of Our Own", 1, true) ~= nil
    if archive then document.meta.frame = true end
    return PANDOC_READER_OPTIONS.extensions:includes("raw_html") and bare(document) or document
  end},
  {Div = division},
  {
    Header = heading, Emph = starred, Strong = content, Underline = content, SmallCaps = content,
    Note = nothing, Image = nothing, Figure = nothing, Strikeout = nothing, BlockQuote = content, Link = content,
    Para = paragraphs, Plain = paragraphs, Table = cells,
    HorizontalRule = function() return pandoc.Para({pandoc.Str("***")}) end,
  },
}
