-- What of a document is no story: footnotes, pictures, an archive's frame around the work. Headings and italics
-- are written as Markdown has them, so that all kinds of file look alike afterwards.
local archive = false

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
    return document
  end},
  {Div = division},
  {
    Header = heading, Emph = starred, Strong = content, Underline = content, SmallCaps = content,
    Note = nothing, Image = nothing, Figure = nothing, BlockQuote = content, Link = content,
    HorizontalRule = function() return pandoc.Para({pandoc.Str("***")}) end,
  },
}
