"""The curriculum's objectives in mathematics, as `kdtw_jax.classroom.curriculum` reads them.

A unit is headed by its topic and grade. An objective takes three lines: its key, what it needs after "<", and its text;
an activity, and one that takes up an interest, {i}; two checks of understanding.
"""

NUMBERS = """
addition, grade 2
tens: break numbers into tens and ones
  bundle sticks into tens | count pictures of {i} in tens and ones
  How many tens are in 47? | Which number has 3 tens and 5 ones?
carrying < tens: add two numbers with a carry
  add with rods of ten and cubes | write and solve sums about {i}
  What is 27 + 15? | Why does 8 + 6 give a new ten?
borrowing < tens: subtract and break a ten
  take cubes away from rods of ten | act out giving away cards of {i}
  What is 32 - 17? | Which ten is broken in 41 - 5?
inverse < carrying borrowing: check a difference by a sum
  solve sums in pairs and swap to check | hide a number on a card of {i} and find it
  Which sum checks 40 - 12 = 28? | How do you check 53 - 20?

shapes, grade 2
flat-shapes: name flat shapes by sides and corners
  sort paper shapes by their corners | look for shapes in pictures of {i}
  How many sides does a hexagon have? | Which shape has three corners?
solids: name solids by their faces
  build cubes and prisms of clay | make a model from a box for {i}
  Which solid has only square faces? | Which solid can roll?
symmetry < flat-shapes: find lines of symmetry
  fold paper shapes in half | fold and cut a mask for {i}
  How many lines of symmetry does a square have? | Where is the line of symmetry in the letter A?
patterns < flat-shapes: continue a pattern of shapes
  lay tiles in a repeating row | paint a border of shapes around a picture of {i}
  Which shape comes next after square, circle, square? | Which part of the pattern repeats?

multiplication, grade 3
groups < carrying: see multiplication as equal groups
  lay counters in equal rows | pack cards of {i} into equal boxes
  How many are 4 groups of 5? | Which sum is the same as 3 × 6?
turned < groups: swap the factors of a product
  turn a grid of dots on its side | seat fans of {i} in rows and turn the plan
  Why is 3 × 7 the same as 7 × 3? | Which product is the same as 9 × 2?
tables < groups: know the tables of 2, 5 and 10
  clap and count in steps | make a board game about {i} with table cards
  What is 7 × 5? | Which table has only numbers that end in 0?
hard-tables < tables turned: know the tables of 6, 7 and 8
  build hard products from easy ones | hold a quiz on products for fans of {i}
  What is 6 × 8? | How does 5 × 7 help with 6 × 7?
scaling < groups: multiply a number of tens
  write products of tens beside easy ones | work out the cost of ten tickets for {i}
  What is 4 × 30? | Why does 2 × 40 end in 0?

fractions, grade 3
parts: name halves, thirds and quarters
  fold strips of paper into equal parts | cut pictures of {i} into quarters
  How many quarters make a half? | Are two unequal parts two halves?
unit-fractions < parts: read and write unit fractions
  label parts of a circle | colour an eighth of a poster about {i}
  How is one of five equal parts written? | What does the bottom number of 1/6 say?
number-line < unit-fractions: place fractions on a number line
  hang fraction cards on a string | draw a path to {i} and mark its quarters
  Where is 3/4 between 0 and 1? | Which fraction is half way to 1?
share-sets < parts: find a fraction of a set
  share counters among groups | share cards of {i} among four friends
  What is a quarter of 12? | What is a third of 15?

division, grade 4
sharing < groups: see division as sharing and grouping
  share counters in two ways | pack cards of {i} into bags
  What is 20 shared by 4? | How many bags of 5 hold 30 cards?
facts < sharing hard-tables: use tables to divide
  match products with quotients | hold a quiz on quotients for fans of {i}
  What is 42 ÷ 6? | Which table helps with 56 ÷ 8?
remainders < sharing: say what is left over
  divide counters until some are left | seat fans of {i} at tables of six
  What is left of 17 shared by 5? | Can a remainder of 7 be right when we divide by 6?
long-division < facts remainders: divide a two-digit number in steps
  divide with rods of ten and cubes | plan buses for a trip to {i}
  What is 84 ÷ 3? | What happens to the ten that is left in 52 ÷ 4?

area, grade 4
perimeter < flat-shapes: measure around a shape
  measure the edges of desks | measure the frame for a picture of {i}
  What is the perimeter of a square with sides of 5 cm? | Which lengths are added for a perimeter?
squares < flat-shapes: count squares to find an area
  cover shapes with square tiles | draw a plan on squared paper for {i}
  How many tiles cover 3 rows of 4? | What does one square centimetre look like?
rectangles < squares turned: multiply to find the area of a rectangle
  check areas of books with tiles | work out the floor of a room for {i}
  What is the area of 6 m by 4 m? | Why do we multiply the sides?
compound < rectangles perimeter: split a shape into rectangles
  cut L shapes into two parts | design a garden for {i} from rectangles
  Where can an L be cut? | Is the area of the whole the sum of its parts?

fractions, grade 5
equal-fractions < number-line: find equal fractions
  compare strips of halves, quarters and eighths | match equal cards in a game of {i}
  Which fraction with 8 below equals 3/4? | Is 2/6 the same as 1/3?
compare-fractions < equal-fractions: compare fractions
  order fraction cards on a line | rank votes for {i} as fractions
  Which is more, 2/3 or 3/5? | Which is less, 1/8 or 1/9?
add-fractions < equal-fractions: add and subtract fractions
  add parts of circles | write a recipe for {i} with quarters and eighths
  What is 1/2 + 1/4? | Why do we not add the bottom numbers?
mixed-numbers < unit-fractions: write mixed numbers
  measure ribbons longer than a metre | share five cakes at a party for {i}
  Which mixed number is 7/4? | How many thirds are in 2 1/3?
times-fractions < mixed-numbers: multiply a fraction by a whole number
  repeat jumps on a number line | triple the recipe of a cake for {i}
  What is 3 × 2/5? | Is 4 × 1/2 more than 1?

decimals, grade 5
tenths < number-line: write tenths as decimals
  mark tenths on a metre of paper | time short films of {i} to tenths of a second
  Which decimal is 7/10? | What does the 4 in 2.4 stand for?
hundredths < tenths: read hundredths
  colour squares of a hundred grid | price things for a shop of {i}
  Which is more, 0.3 or 0.28? | Which decimal is 5/100?
add-decimals < hundredths: add and subtract decimals
  add prices from a catalogue | keep accounts for a shop of {i}
  What is 3.75 + 1.50? | Why must the points stand below each other?
rounding < tenths: round decimals to whole numbers
  jump to the nearest whole number | round the scores of {i}
  What is 6.7 rounded? | Which numbers round to 4?

percentages, grade 6
hundred < hundredths: see a percentage as parts of a hundred
  colour percentages of a hundred grid | ask the class about {i} and colour the shares
  Which fraction is 25%? | What is all of a thing in percent?
percent-forms < hundred equal-fractions: change between fractions, decimals and percentages
  match three forms on cards | make a memory game of {i} with three forms
  Which percentage is 3/4? | Which decimal is 40%?
percent-of < hundred times-fractions: find a percentage of a number
  find tenths first and build on them | work out how many of 80 fans like {i}
  What is 10% of 60? | How does 10% help to find 30%?
discount < percent-of: work out a discount
  lower prices in a class shop | plan a sale of posters about {i}
  What does a shirt of $40 cost at 25% off? | Is 50% off the same as half price?

data, grade 6
survey: collect data in a table
  tally the traffic at the school | ask the class about {i} and tally
  What does a tally of five look like? | Who should be asked, and how many?
charts < survey: draw and read a bar chart
  draw bars for the weather of a week | draw bars for the answers about {i}
  What does the height of a bar say? | Which bar is the highest?
mean < survey long-division: find a mean
  level towers of cubes | find the mean of votes for {i}
  What is the mean of 4, 6 and 8? | Can a mean lie above all values?
median < survey: find a median and a range
  line up by height | order the ages of fans of {i}
  What is the median of 3, 9 and 5? | What does the range say?
misleading < charts mean: find what misleads in a chart
  compare charts with cut scales | write an honest news item about {i}
  Why can an axis that begins at 50 mislead? | What does one very large value do to a mean?

equations, grade 7
letters < inverse: use a letter for a number
  play guess my number | write rules about {i} with letters
  What is n + 3 for n = 4? | What does 2n mean?
like-terms < letters: collect like terms
  sort cards of x and of numbers | count two kinds of cards of {i} with letters
  What is 3x + 2x? | Can 2x and 5 become one term?
balance < letters: keep an equation in balance
  weigh bags on scales | balance a puzzle about {i}
  What must be done to both sides? | Is x = 3 right for x + 4 = 7?
solve < balance like-terms: solve an equation in two steps
  undo steps in reverse order | solve a puzzle about {i} with x
  What is x in 2x + 1 = 9? | Which step comes first?
model < letters balance: write an equation for a story
  match stories with equations | invent a story about {i} for 3x = 12
  Which equation fits five more than x is 12? | What does x stand for in the story?

probability, grade 7
chance: describe chance in words
  sort events on a line | sort events from {i} by chance
  Which event is certain? | Is an even chance the same as one half?
outcomes < chance: list all outcomes
  list the throws of two coins | list pairs of heroes from {i}
  How many outcomes do two coins have? | How do you know that none is missing?
as-fraction < outcomes equal-fractions: write a probability as a fraction
  draw counters from a bag | make a spinner for a game of {i}
  What is the probability of a 6? | Can a probability be 5/4?
experiment < chance percent-forms: compare an experiment with what is expected
  throw a die a hundred times | test the spinner for {i}
  Must 60 throws give ten sixes? | What happens with more throws?
"""
